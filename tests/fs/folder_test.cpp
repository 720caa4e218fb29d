#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountFolder = MountTest;
using Names = std::vector<std::string>;

const std::string kWeights = "m/int8/0/model.safetensors";

nlohmann::json json_in(const std::string& path) {
  return nlohmann::json::parse(read_file(path));
}

// S51: `<dtype>/0/` is a folder that frameworks load: `model.safetensors`, `config.json`, `qcache.json`, what the dtype
// adds (`quanto_qmap.json`), and every other file and folder of the model but weights and hidden names.
TEST_F(MountFolder, ListsWhatLoadersNeed) {
  small_model()
      .file("tokenizer.json", "{}")
      .file("modeling_x.py", "x = 1")
      .file(".gitattributes", "x")
      .file("pytorch_model.bin", "x")
      .file("1_Pooling/config.json", "{}")
      .write(model("m"));
  MountedFs& fs = mount();
  const Names common = {"1_Pooling", "config.json", "model.safetensors", "modeling_x.py", "qcache.json"};
  for (const std::string& dtype : all_dtypes()) {
    Names expected = common;
    if (dtype.starts_with("q")) {
      expected.emplace_back("quanto_qmap.json");
    }
    expected.emplace_back("tokenizer.json");
    EXPECT_EQ(names_in(fs.path("m/" + dtype + "/0")), expected) << dtype;
    EXPECT_EQ(names_in(fs.path("m/" + dtype + "/0/1_Pooling")), Names{"config.json"});
  }
  for (const char* name : {"m/int8/0/pytorch_model.bin", "m/int8/0/.gitattributes", "m/int8/0/x", "m/int8/0/0.bin",
                           "m/int8/0/1_Pooling/x", "m/int8/0/quanto_qmap.json"}) {
    EXPECT_EQ(stat_error(fs.path(name)), ENOENT) << name;
  }
}

// S52: `model.safetensors` holds the same tensors as `0.bin`, with the bytes of quantizing whole tensors in memory; its
// size is exact from the first `stat` on, and it is made, mapped and sealed as `0.bin` is.
TEST_F(MountFolder, WeightsEqualTheEagerBytesInEveryDtype) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  for (const std::string& dtype : all_dtypes()) {
    SCOPED_TRACE(dtype);
    const std::string name = "m/" + dtype + "/0/model.safetensors";
    const std::string expected = expected_safetensors(model("m"), dtype);
    EXPECT_EQ(stat_of(fs.path(name)).st_size, static_cast<off_t>(expected.size()));
    EXPECT_EQ(fs.xattr(name, "state"), "absent");
    EXPECT_TRUE(reads_as(read_whole(fs.path(name)), expected));
    fs.wait_until_sealed(name);
    EXPECT_TRUE(reads_as(read_whole(fs.path(name)), expected));
    const UniqueFd fd = open_file(fs.path(name));
    EXPECT_TRUE(same_bytes(Mapping(fd.get(), expected.size(), MAP_SHARED, PROT_READ).bytes(), expected));
    EXPECT_NE(stat_of(fs.path(name)).st_ino, stat_of(fs.path("m/" + dtype + "/0.bin")).st_ino);
  }
}

TEST_F(MountFolder, AReadOfTheLastTensorMakesThatTensorOnly) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string expected = expected_safetensors(model("m"), "int8");
  const UniqueFd fd = open_file(fs.path(kWeights));
  const size_t tail = 3000;
  EXPECT_TRUE(reads_as(read_at(fd.get(), expected.size() - tail, tail), expected.substr(expected.size() - tail)));
  EXPECT_LE(fs.status("tiles_quantized"), 2U);
  EXPECT_TRUE(reads_as(read_at(fd.get(), 0, 4096), expected.substr(0, 4096)));
  EXPECT_LE(fs.status("tiles_quantized"), 2U) << "the header needs no tensor";
}

// S67: A program that looks for `adapter_config.json` in a folder `<rank>/`, which has none, gets the folder's weights
// made ahead, for 3 seconds if it does not open them. transformers does so before it loads, where peft is installed.
TEST_F(MountFolder, WeightsAreMadeAheadOfALoader) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  for (const char* other : {"m/int8/adapter_config.json", "m/int8/0/tokenizer_config.json", "m/int8/16/lora/x.json"}) {
    EXPECT_EQ(stat_error(fs.path(other)), ENOENT) << other;
  }
  EXPECT_FALSE(read_file(fs.path("m/int8/0/config.json")).empty());
  EXPECT_EQ(fs.xattr(kWeights, "state"), "absent") << "nothing else foretells a load";
  for (const char* folder : {"m/int8/0", "m/nf4/16"}) {
    EXPECT_EQ(stat_error(fs.path(folder) + "/adapter_config.json"), ENOENT);
    fs.wait_until_sealed(folder + std::string("/model.safetensors"));
  }
  EXPECT_EQ(fs.status("files_sealed"), 2U);
  EXPECT_TRUE(reads_as(read_whole(fs.path(kWeights)), expected_safetensors(model("m"), "int8")));
}

// S67: A program that looks for `adapter_config.json` in a folder `<rank>/`, which has none, gets the folder's weights
// made ahead, for 3 seconds if it does not open them. transformers does so before it loads, where peft is installed.
TEST_F(MountFolder, ALoaderThatDoesNotComeIsNotWaitedFor) {
  using Clock = std::chrono::steady_clock;
  huge_model(200).write(model("huge"));
  MountedFs& fs = mount();
  const Clock::time_point asked = Clock::now();
  EXPECT_EQ(stat_error(fs.path("huge/int8/0/adapter_config.json")), ENOENT);
  uint64_t made = 0;
  Clock::time_point grown = asked;
  while (Clock::now() - grown < std::chrono::seconds(2)) {
    const uint64_t now_made = fs.status("tiles_quantized");
    grown = now_made == made ? grown : Clock::now();
    made = now_made;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    ASSERT_LT(Clock::now() - asked, std::chrono::seconds(20)) << "it never stops";
  }
  EXPECT_GT(made, 0U);
  EXPECT_GT(grown - asked, std::chrono::seconds(2));
  EXPECT_EQ(fs.xattr("huge/int8/0/model.safetensors", "state"), "filling");
}

// S114: So does a program that opens `quanto_qmap.json`, which nobody reads but who loads weights of quanto's dtypes.
TEST_F(MountFolder, QuantosMapForetellsALoad) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string weights = "m/qfloat8/0/model.safetensors";
  EXPECT_EQ(stat_error(fs.path("m/qfloat8/0/quanto_qmap.json")), 0);
  EXPECT_FALSE(read_file(fs.path("m/qfloat8/0/config.json")).empty());
  EXPECT_EQ(fs.xattr(weights, "state"), "absent");
  EXPECT_FALSE(read_file(fs.path("m/qfloat8/0/quanto_qmap.json")).empty());
  fs.wait_until_sealed(weights);
  EXPECT_TRUE(reads_as(read_whole(fs.path(weights)), expected_safetensors(model("m"), "qfloat8")));
}

// S113: Who opens announced weights while they are made waits for the rest, where that is at most 2 seconds away, and
// then has a complete file, which the kernel reads.
TEST_F(MountFolder, AnAnnouncedLoadOpensACompleteFile) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string expected = expected_safetensors(model("m"), "int8");
  EXPECT_EQ(stat_error(fs.path("m/int8/0/adapter_config.json")), ENOENT);
  const UniqueFd fd = open_file(fs.path(kWeights));
  EXPECT_TRUE(reads_as(read_at(fd.get(), 0, expected.size()), expected));
  const std::string state = fs.xattr(kWeights, "state");
  EXPECT_TRUE(state == "complete" || state == "sealed") << state;
  if (fs.status("passthrough") != 0) {
    EXPECT_EQ(fs.status("reads"), 0U) << "the daemon sees none of them";
  }
  EXPECT_EQ(fs.status("read_errors"), 0U);
}

// S113: Who opens announced weights while they are made waits for the rest, where that is at most 2 seconds away, and
// then has a complete file, which the kernel reads.
TEST_F(MountFolder, AnAnnouncedLoadOfALargeModelIsOpenedAtOnce) {
  using Clock = std::chrono::steady_clock;
  huge_model(200).write(model("huge"));
  MountedFs& fs = mount();
  EXPECT_EQ(stat_error(fs.path("huge/int8/0/adapter_config.json")), ENOENT);
  const Clock::time_point asked = Clock::now();
  const UniqueFd fd = open_file(fs.path("huge/int8/0/model.safetensors"));
  EXPECT_LT(Clock::now() - asked, std::chrono::seconds(2));
  EXPECT_EQ(read_at(fd.get(), 0, 4096).error, 0);
}

// S53: The other files of a folder are those of the model as they are now: read, mapped and listed without a remount,
// and nothing of them is copied into the cache directory.
TEST_F(MountFolder, OtherFilesAreTheModelsOwn) {
  std::string large(3'000'000, 'x');
  for (size_t i = 0; i < large.size(); ++i) {
    large[i] = static_cast<char>('a' + i * i % 23);
  }
  small_model().file("tokenizer.json", large).file("sub/deep/file.txt", "deep").write(model("m"));
  MountedFs& fs = mount();
  const std::string name = fs.path("m/nf4/0/tokenizer.json");
  EXPECT_TRUE(reads_as(read_whole(name), large));
  const UniqueFd fd = open_file(name);
  EXPECT_TRUE(same_bytes(Mapping(fd.get(), large.size(), MAP_SHARED, PROT_READ).bytes(), large));
  EXPECT_TRUE(reads_as(read_at(fd.get(), 2'999'990, 4096), large.substr(2'999'990)));
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/nf4/0/sub/deep/file.txt")), "deep"));
  EXPECT_EQ(stat_of(name).st_size, 3'000'000);
  EXPECT_EQ(stat_of(name).st_mtime, stat_of(model("m") + "/tokenizer.json").st_mtime);
  EXPECT_EQ(run_program({"timeout", "60", MountedFs::program(), "warm", name}, dir() / "said"), 2);
  EXPECT_NE(read_file(dir() / "said").find("nothing to warm"), std::string::npos) << read_file(dir() / "said");

  // Rewritten in place, replaced, new, gone.
  write_file(model("m") + "/tokenizer.json", "short");
  EXPECT_TRUE(reads_as(read_whole(name), "short"));
  EXPECT_EQ(stat_of(name).st_size, 5);
  write_file(dir() / "other", "replaced");
  std::filesystem::rename(dir() / "other", model("m") + "/tokenizer.json");
  EXPECT_TRUE(reads_as(read_whole(name), "replaced"));
  // Also where size and time stay, and somebody still has the old one open.
  const UniqueFd old = open_file(name);
  const int64_t mtime_ns = 1'700'000'000'000'000'000;
  set_mtime(model("m") + "/tokenizer.json", mtime_ns);
  write_file(dir() / "other", "REPLACED");
  set_mtime(dir() / "other", mtime_ns);
  std::filesystem::rename(dir() / "other", model("m") + "/tokenizer.json");
  EXPECT_TRUE(reads_as(read_whole(name), "REPLACED"));
  EXPECT_TRUE(reads_as(read_at(old.get(), 0, 100), "replaced"));
  write_file(model("m") + "/new.txt", "new");
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/nf4/0/new.txt")), "new"));
  std::filesystem::remove(model("m") + "/new.txt");
  EXPECT_EQ(open_error(fs.path("m/nf4/0/new.txt"), O_RDONLY), ENOENT);
  EXPECT_EQ(open_error(name, O_RDWR), EROFS);
  EXPECT_EQ(fs.status("cache_bytes"), 0U);
}

// S54: `config.json` is the model's with a `quantization_config` for the dtype and the dtype of what is not quantized;
// all else in it stays as it was written, NaN and digits included.
TEST_F(MountFolder, ConfigKeepsEverythingAndSaysHowItIsQuantized) {
  const auto with_config = [](std::string config) {
    return ModelBuilder().config(std::move(config)).tensor("a.q_proj.weight", DType::kBF16, {64, 64});
  };
  with_config(
      R"({"model_type": "qwen2", "torch_dtype": "float32", "eps": 1.0000e-05, "limit": Infinity, "n": {"a": []}})")
      .write(model("m"));
  MountedFs& fs = mount();
  const std::string text = read_file(fs.path("m/fp8/0/config.json"));
  EXPECT_NE(text.find(R"("eps": 1.0000e-05)"), std::string::npos);
  EXPECT_NE(text.find(R"("limit": Infinity)"), std::string::npos);
  EXPECT_NE(text.find(R"("torch_dtype": "bfloat16")"), std::string::npos) << "most bytes of the model are";
  EXPECT_NE(text.find(R"("quant_method":"compressed-tensors")"), std::string::npos);
  const std::string cast = read_file(fs.path("m/fp16/0/config.json"));
  EXPECT_NE(cast.find(R"("torch_dtype": "float16")"), std::string::npos);
  EXPECT_EQ(cast.find("quantization_config"), std::string::npos);

  const auto qcache = json_in(fs.path("m/fp8/0/qcache.json"));
  EXPECT_EQ(qcache.at("dtype"), "fp8");
  EXPECT_EQ(qcache.at("source").at(0).at("name"), "model.safetensors");
  EXPECT_EQ(qcache.at("quantized"), nlohmann::json::array({"a.q_proj"}));

  // A new config is a new folder.
  with_config(R"({"model_type": "qwen2", "marker": 7})").write(model("m"));
  EXPECT_EQ(json_in(fs.path("m/fp8/0/config.json")).at("marker"), 7);
}

// S65: Some time after a file of weights was sealed, `qcache.json` of its folder gets `sqnr_db`: by module the ratio of
// signal to quantization noise, measured on a sample. The text before and after is another file; who has it open keeps
// his.
TEST_F(MountFolder, QualityIsToldOnceTheWeightsAreSealed) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string name = fs.path("m/nf4/0/qcache.json");
  const std::string before = read_file(name);
  EXPECT_FALSE(nlohmann::json::parse(before).contains("sqnr_db"));
  const UniqueFd old = open_file(name);
  EXPECT_EQ(read_whole(fs.path("m/nf4/0.bin")).error, 0);
  fs.wait_until_hashed("m/nf4/0.bin");

  const std::string after = read_file(name);
  EXPECT_EQ(stat_of(name).st_size, static_cast<off_t>(after.size()));
  const auto told = nlohmann::json::parse(after);
  EXPECT_EQ(told.at("sqnr_db").size(), told.at("quantized").size());
  for (const auto& module : told.at("quantized")) {
    EXPECT_NEAR(told.at("sqnr_db").at(module.get<std::string>()).get<double>(), 20.7, 1) << module;
  }
  EXPECT_EQ(told.at("sqnr_measured_elements"), 64 * 64 + 96 * 128);
  EXPECT_TRUE(reads_as(read_at(old.get(), 0, before.size() + 1), before));
  const auto summary = nlohmann::json::parse(fs.xattr("m/nf4/0.bin", "sqnr"));
  EXPECT_EQ(summary.at("weights"), 2);

  EXPECT_EQ(read_whole(fs.path(kWeights)).error, 0);
  fs.wait_until_hashed(kWeights);
  EXPECT_TRUE(json_in(fs.path("m/int8/0/qcache.json")).contains("sqnr_db")) << "whichever file of them it is";
  EXPECT_EQ(run_program({"rm", fs.path(kWeights)}), 0);
  EXPECT_FALSE(json_in(fs.path("m/int8/0/qcache.json")).contains("sqnr_db"));
}

TEST_F(MountFolder, AModelWithoutAUsableConfigKeepsWhatItHas) {
  small_model().config("{broken").write(model("broken"));
  ModelBuilder().tensor("a.weight", DType::kF32, {64, 64}).write(model("none"));
  MountedFs& fs = mount();
  EXPECT_TRUE(reads_as(read_whole(fs.path("broken/int8/0/config.json")), "{broken"));
  EXPECT_NE(fs.xattr("broken", "config_problem"), "");
  EXPECT_EQ(names_in(fs.path("none/int8/0")), (Names{"model.safetensors", "qcache.json"}));
}

// S57: A diffusers pipeline is one model: its `transformer` or `unet` is quantized, the rest passed through, and only
// the dtypes that diffusers loads are there.
TEST_F(MountFolder, APipelineIsOneModelWithOneQuantizedPart) {
  const std::string pipeline = model("pipe");
  const auto part = [](const char* config) {
    return ModelBuilder().config(config).tensor("blocks.0.attn.to_q.weight", DType::kBF16, {64, 64});
  };
  part(R"({"_class_name": "XTransformer2DModel"})").write(pipeline + "/transformer");
  part(R"({"_class_name": "AutoencoderKL"})").write(pipeline + "/vae");
  std::filesystem::rename(pipeline + "/transformer/model.safetensors",
                          pipeline + "/transformer/diffusion_pytorch_model.safetensors");
  write_file(pipeline + "/model_index.json", R"({"_class_name": "XPipeline"})");
  write_file(pipeline + "/scheduler/scheduler_config.json", "{}");
  MountedFs& fs = mount();
  EXPECT_EQ(names_in(fs.path()), (Names{".qcache", "pipe"}));
  EXPECT_EQ(stat_error(fs.path("pipe/int8")), ENOENT);
  EXPECT_NE(fs.xattr("pipe", "refused").find("int8: int8 cannot serve a diffusers pipeline"), std::string::npos);
  const std::string folder = "pipe/qfloat8/0";
  EXPECT_EQ(names_in(fs.path(folder)), (Names{"model_index.json", "scheduler", "transformer", "vae"}));
  EXPECT_EQ(names_in(fs.path(folder + "/transformer")),
            (Names{"config.json", "diffusion_pytorch_model.safetensors", "qcache.json", "quanto_qmap.json"}));
  EXPECT_EQ(read_file(fs.path(folder + "/vae/model.safetensors")), read_file(pipeline + "/vae/model.safetensors"));
  const std::string weights = folder + "/transformer/diffusion_pytorch_model.safetensors";
  EXPECT_TRUE(reads_as(read_whole(fs.path(weights)), expected_safetensors(pipeline, "qfloat8")));
  EXPECT_TRUE(reads_as(read_whole(fs.path("pipe/qfloat8/0.bin")), expected_file(pipeline, "qfloat8")));
  const auto config = json_in(fs.path(folder + "/transformer/config.json"));
  EXPECT_EQ(config.at("quantization_config").at("quant_method"), "quanto");
  EXPECT_FALSE(config.contains("torch_dtype")) << "diffusers complains about names that it does not know";
  fs.wait_until_sealed(weights);
  EXPECT_EQ(run_program({"rm", "-r", fs.path(folder)}), 0);
  EXPECT_EQ(fs.xattr(weights, "state"), "absent");
}

// S55: `rm` of a folder's weights drops their bytes; of its other files it does nothing, and the model is never
// touched.
TEST_F(MountFolder, RemovingAFolderDropsItsWeightsOnly) {
  small_model().file("tokenizer.json", "{}").file("sub/x", "x").write(model("m"));
  MountedFs& fs = mount();
  const auto seal = [&] {
    EXPECT_EQ(read_whole(fs.path(kWeights)).error, 0);
    fs.wait_until_sealed(kWeights);
    EXPECT_GT(fs.status("cache_bytes"), 0U);
  };
  seal();
  EXPECT_EQ(::unlink(fs.path("m/int8/0/tokenizer.json").c_str()), 0);
  EXPECT_EQ(::unlink(fs.path("m/int8/0/config.json").c_str()), 0);
  EXPECT_EQ(fs.xattr(kWeights, "state"), "sealed");
  EXPECT_EQ(::unlink(fs.path(kWeights).c_str()), 0);
  EXPECT_EQ(fs.status("cache_bytes"), 0U);
  for (const char* what : {"m/int8/0", "m/int8", "m"}) {
    seal();
    EXPECT_EQ(run_program({"rm", "-r", fs.path(what)}, dir() / "rm"), 0) << read_file(dir() / "rm");
    EXPECT_EQ(fs.status("cache_bytes"), 0U) << what;
  }
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/int8/0/tokenizer.json")), "{}"));
  EXPECT_EQ(read_file(model("m") + "/sub/x"), "x");
}

// S56: All files of a model, its weights, index and `config.json` too, are read from below the model folders only, in a
// hub cache from its repo: a link in their place that leads elsewhere leaves the model unserved, and
// `user.qcache.error` says where it leads; other such links, and all links to folders, are not shown.
TEST_F(MountFolder, LinksDoNotLeadOutOfTheModelFolders) {
  small_model().write(model("m"));
  write_file(dir() / "secret", "secret");
  write_file(models() + "/common/vocab.txt", "words");
  make_link("../../secret", model("m") + "/leak.txt");
  make_link("../common/vocab.txt", model("m") + "/vocab.txt");
  make_link("/", model("m") + "/everything");
  MountedFs& fs = mount();
  EXPECT_EQ(names_in(fs.path("m/int8/0")), (Names{"config.json", "model.safetensors", "qcache.json", "vocab.txt"}));
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/int8/0/vocab.txt")), "words"));
  EXPECT_EQ(open_error(fs.path("m/int8/0/leak.txt"), O_RDONLY), ENOENT);
  EXPECT_EQ(stat_error(fs.path("m/int8/0/everything/etc/passwd")), ENOENT);
}

// S56: All files of a model, its weights, index and `config.json` too, are read from below the model folders only, in a
// hub cache from its repo: a link in their place that leads elsewhere leaves the model unserved, and
// `user.qcache.error` says where it leads; other such links, and all links to folders, are not shown.
TEST_F(MountFolder, AModelWhoseFilesLeadOutIsNotServed) {
  const std::vector<std::pair<std::string, std::string>> led_out = {{"weights", "model-00001-of-00001.safetensors"},
                                                                    {"index", "model.safetensors.index.json"},
                                                                    {"config", "config.json"}};
  for (const auto& [name, file] : led_out) {
    small_model().shards(1).write(model(name));
    std::filesystem::rename(model(name) + "/" + file, dir() / file);
    make_link(dir() / file, model(name) + "/" + file);
  }
  small_model().write(dir() / "elsewhere/secret");
  make_link("../elsewhere/secret", model("linked"));
  make_link("../elsewhere", model("group"));
  small_model().write(model("good"));
  MountedFs& fs = mount();
  EXPECT_EQ(names_in(fs.path()), (Names{".qcache", "config", "good", "index", "weights"}));
  for (const auto& [name, file] : led_out) {
    const std::string error = fs.xattr(name, "error");
    EXPECT_NE(error.find("/" + file + " is a link to " + dir().path()), std::string::npos) << error;
    EXPECT_NE(error.find("mount that folder too"), std::string::npos) << error;
    EXPECT_EQ(names_in(fs.path(name)), Names());
    EXPECT_NE(open_error(fs.path(name) + "/bf16/0/config.json", O_RDONLY), 0);
    EXPECT_NE(open_error(fs.path(name) + "/bf16/0.bin", O_RDONLY), 0);
  }
  const std::string errors = read_file(fs.path(".qcache/errors"));
  EXPECT_NE(errors.find("/models/linked is a link to"), std::string::npos) << errors;
  EXPECT_EQ(errors.find("secret/"), std::string::npos) << "nothing in there was looked at";
  EXPECT_TRUE(reads_as(read_whole(fs.path("good/int8/0.bin")), expected_file(model("good"), "int8")));
}

}  // namespace
}  // namespace qcache
