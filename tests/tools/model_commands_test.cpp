#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <sstream>
#include <thread>

#include "core/store/cache_directory.h"
#include "tests/support/model_builder.h"
#include "tests/support/test_files.h"
#include "tests/tools/command_runner.h"

namespace qcache {
namespace {

using nlohmann::json;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class ModelCommands : public ::testing::Test {
 protected:
  CommandRunner runner_;

  // What `info --json` says of a dtype.
  json dtype_of(const json& document, const std::string& name) {
    for (const json& dtype : document.at("dtypes")) {
      if (dtype.at("dtype") == name) {
        return dtype;
      }
    }
    return {};
  }
};

TEST_F(ModelCommands, InfoOfAFolderListsEveryDtypeWithItsExactSize) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.begin("m", "bf16");
  const Ran ran = runner_.run({"info", runner_.model("m"), "--json"});
  ASSERT_EQ(ran.exit, ExitCode::kOk) << ran.err;
  const json document = ran.json();
  EXPECT_EQ(document.at("model"), "m");
  EXPECT_EQ(document.at("source"), runner_.model("m"));
  EXPECT_EQ(document.at("files"), json::array({"model.safetensors"}));
  EXPECT_EQ(document.at("tensors"), 3);
  EXPECT_EQ(document.at("weight_bytes"), (128 * 64 + 256 * 128 + 64) * 2);
  EXPECT_EQ(document.at("model_dtype"), "bfloat16");
  EXPECT_EQ(document.at("model_type"), "qwen2");
  EXPECT_EQ(document.at("architectures"), json::array({"Qwen2ForCausalLM"}));
  const json int8 = dtype_of(document, "int8");
  EXPECT_EQ(int8.at("state"), "sealed");
  EXPECT_EQ(int8.at("size_bytes"), read_file(runner_.sealed_path("m", "int8")).size());
  EXPECT_EQ(dtype_of(document, "bf16").at("state"), "filling");
  EXPECT_EQ(dtype_of(document, "fp32").at("state"), "absent");
  EXPECT_GT(dtype_of(document, "fp32").at("size_bytes"), document.at("weight_bytes"));

  const Ran text = runner_.run({"info", runner_.model("m")});
  EXPECT_THAT(text.out, HasSubstr("Qwen2ForCausalLM (qwen2)"));
  EXPECT_THAT(text.out, HasSubstr("1 (model.safetensors)"));
  EXPECT_THAT(text.out, ContainsRegex("int8 +[0-9.]+K +0-128  absent +sealed\n"));
  EXPECT_THAT(text.out, ContainsRegex("bf16 +[0-9.]+K +0  absent +filling 0%\n"));
}

// Everything fits 80 columns without breaking words, reasons for what is not served too.
TEST_F(ModelCommands, InfoFitsEightyColumns) {
  ModelBuilder()
      .config(R"({"model_type":"qwen2","quantization_config":{"quant_method":"gptq","bits":4}})")
      .tensor("model.layers.0.mlp.up_proj.weight", DType::kBF16, {256, 128})
      .write(runner_.model("q"));
  runner_.write_model("m");
  for (const char* name : {"q", "m"}) {
    std::istringstream lines(runner_.run({"info", runner_.model(name)}).out);
    for (std::string line; std::getline(lines, line);) {
      EXPECT_TRUE(line.size() <= 80 || line.find(runner_.models()) != std::string::npos) << line;
    }
  }
  EXPECT_THAT(runner_.run({"info", runner_.model("q")}).out, HasSubstr("Not served:\n  bf16, fp16"));
}

TEST_F(ModelCommands, InfoSaysThatACachedFileIsOfAnEarlierModel) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  ModelBuilder().tensor("other.weight", DType::kBF16, {64, 64}).write(runner_.model("m"));
  const json document = runner_.run({"info", runner_.model("m"), "--json"}).json();
  EXPECT_EQ(dtype_of(document, "int8").at("state"), "stale");
}

TEST_F(ModelCommands, InfoNeedsNoCacheDirectory) {
  runner_.write_model("m");
  EXPECT_EQ(runner_.run({"info", runner_.model("m")}).exit, ExitCode::kOk);
  EXPECT_FALSE(std::filesystem::exists(runner_.cache()));
}

TEST_F(ModelCommands, InfoTellsWhyAModelCannotBeServed) {
  write_file(runner_.model("broken") + "/model.safetensors", "not a model at all, but long enough");
  const Ran broken = runner_.run({"info", runner_.model("broken")});
  EXPECT_EQ(broken.exit, ExitCode::kModelUnusable);
  EXPECT_THAT(broken.err, HasSubstr("model.safetensors"));

  make_directories(runner_.model("empty"));
  const Ran empty = runner_.run({"info", runner_.model("empty")});
  EXPECT_EQ(empty.exit, ExitCode::kNotFound);
  EXPECT_THAT(empty.err, HasSubstr("holds no weights"));

  runner_.write_model("a");
  runner_.write_model("b");
  const Ran several = runner_.run({"info", runner_.models()});
  EXPECT_EQ(several.exit, ExitCode::kUsage);
  EXPECT_THAT(several.err, HasSubstr("holds 3 models"));
}

TEST_F(ModelCommands, AModelThatMayNotBeReadIsNoMatterOfTheCacheDirectory) {
  runner_.write_model("m");
  runner_.env().fail_all(EnvCall::kOpen, EACCES, "m/model.safetensors");
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"info", runner_.model("m")}, {"warm", runner_.model("m"), "int8"}}) {
    const Ran ran = runner_.run(words);
    EXPECT_EQ(ran.exit, ExitCode::kModelUnusable) << words[0];
    EXPECT_THAT(ran.err, HasSubstr("model.safetensors: Permission denied"));
  }
}

TEST_F(ModelCommands, InfoOfACachedFilePrintsItsRecord) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  for (const std::string& name : {runner_.sealed_path("m", "int8"), std::string("m/int8/0.bin"), std::string("m")}) {
    const Ran ran = runner_.run({"info", name, "--json"});
    EXPECT_EQ(ran.exit, ExitCode::kOk) << ran.err;
    EXPECT_EQ(ran.json().at("path"), "m/int8/0.bin") << name;
    EXPECT_EQ(ran.json().at("source"), runner_.model("m"));
  }
  const Ran text = runner_.run_as_is({"info", runner_.sealed_path("m", "int8")});
  EXPECT_EQ(text.exit, ExitCode::kOk) << "the path tells the cache directory: " << text.err;
  EXPECT_THAT(text.out, ContainsRegex("  sha256 +[0-9a-f]+\n"));
  EXPECT_THAT(text.out, ContainsRegex("  pinned +no\n"));
  EXPECT_THAT(text.out, ContainsRegex("  sqnr +[0-9.]+ dB \\(median of 1 quantized weights\\)\n"
                                      " +[0-9.]+ dB model.layers.0.mlp.up_proj\n"));
  const json sqnr = runner_.run({"info", "m", "--json"}).json().at("sqnr");
  EXPECT_EQ(sqnr.at("measured_elements"), 256 * 128);
  EXPECT_NEAR(sqnr.at("median_db").get<double>(), 44, 5);
  runner_.warm("m", "bf16");
  EXPECT_TRUE(runner_.run({"info", "m/bf16/0.bin", "--json"}).json().at("sqnr").is_null()) << "nothing is quantized";

  const std::string name = runner_.cache() + "/" + artifact_file_name("/gone", "int8", 0);
  write_file(name, "stray");
  const Ran stray = runner_.run({"info", name});
  EXPECT_EQ(stray.exit, ExitCode::kNotFound);
  EXPECT_THAT(stray.err, HasSubstr("has no record"));
}

TEST_F(ModelCommands, InfoOfAnUnknownNameSaysWhatToDo) {
  for (const char* name : {"nobody", "nobody/int8/0.bin", "/no/such/model"}) {
    const Ran ran = runner_.run({"info", name});
    EXPECT_EQ(ran.exit, ExitCode::kNotFound) << name;
    EXPECT_THAT(ran.err, HasSubstr("name"));
  }
}

TEST_F(ModelCommands, WarmMakesAFileComplete) {
  runner_.write_model("m");
  const Ran ran = runner_.run({"warm", runner_.model("m"), "int8", "0.bin"});
  EXPECT_EQ(ran.exit, ExitCode::kOk) << ran.err;
  EXPECT_THAT(ran.out, ContainsRegex("m/int8/0.bin is complete: [0-9.]+K in [0-9.]+ s, [0-9.]+[KMG]/s\n"));
  EXPECT_TRUE(std::filesystem::exists(runner_.sealed_path("m", "int8")));
  const Ran again = runner_.run({"warm", runner_.model("m"), "int8", "0.bin", "--json"});
  EXPECT_EQ(again.json().at("files").at(0).at("was_complete"), true);
  EXPECT_EQ(runner_.run({"verify"}).exit, ExitCode::kOk);
}

TEST_F(ModelCommands, WarmAllMakesEveryDtypeThatIsServed) {
  runner_.write_model("m");
  const json info = runner_.run({"info", runner_.model("m"), "--json"}).json();
  size_t served = 0;
  for (const json& dtype : info.at("dtypes")) {
    served += dtype.at("served").get<bool>() ? 1U : 0U;
  }
  const Ran ran = runner_.run({"warm", runner_.model("m"), "--all", "--json"});
  EXPECT_EQ(ran.exit, ExitCode::kOk) << ran.err;
  EXPECT_GT(served, 3U);
  EXPECT_EQ(ran.json().at("files").size(), served);
  EXPECT_EQ(runner_.run({"ls", "--json"}).json().at("files").size(), served);
}

TEST_F(ModelCommands, WarmFindsBytesOfAnEarlierName) {
  // Found below a folder, the model is called the same as when the folder itself is named.
  runner_.write_model("m");
  EXPECT_EQ(runner_.run({"warm", runner_.models(), "int8"}).exit, ExitCode::kOk);
  EXPECT_THAT(runner_.run({"warm", runner_.model("m"), "int8"}).out, HasSubstr("complete already"));
}

TEST_F(ModelCommands, WarmMakesAnyRank) {
  runner_.write_model("m");
  EXPECT_THAT(runner_.run({"warm", runner_.model("m"), "nf4", "4.bin"}).out, HasSubstr("m/nf4/4.bin is complete"));
  const Ran adapter = runner_.run({"warm", runner_.model("m"), "nf4/4/lora/adapter_model.safetensors"});
  EXPECT_THAT(adapter.out, HasSubstr("m/nf4/4/lora/adapter_model.safetensors is complete"));
  EXPECT_THAT(runner_.run({"info", runner_.model("m")}).out, HasSubstr(" 0-128 "));
}

TEST_F(ModelCommands, WarmShowsABarOnATerminalOnly) {
  runner_.write_model("m");
  const Ran ran = runner_.run_on_terminal({"warm", runner_.model("m"), "int8", "--cache-dir", runner_.cache()});
  EXPECT_THAT(ran.out, HasSubstr("\rm int8 ["));
  EXPECT_THAT(ran.out, HasSubstr("\r\x1b[Km/int8/0/model.safetensors is complete"));
  EXPECT_THAT(runner_.run({"warm", runner_.model("m"), "bf16"}).out, ::testing::Not(HasSubstr("\r")));
}

TEST_F(ModelCommands, WarmRefusesWhatCannotBeMade) {
  runner_.write_model("m");
  const struct {
    std::vector<std::string> words;
    ExitCode exit;
    const char* said;
  } cases[] = {
      {{"warm", runner_.model("m")}, ExitCode::kUsage, "--all"},
      {{"warm", runner_.model("m"), "int8", "--all"}, ExitCode::kUsage, "not both"},
      {{"warm", runner_.model("m"), "int3"}, ExitCode::kNotFound, "choose from: bf16"},
      {{"warm", runner_.model("m"), "itn8"}, ExitCode::kNotFound, "'itn8'; did you mean int8? Or choose from: bf16"},
      {{"warm", runner_.model("m"), "int8", "70000"},
       ExitCode::kNotFound,
       "has no rank 70000 as int8: its ranks are 0 to 128"},
      {{"warm", runner_.model("m"), "bf16", "4"}, ExitCode::kNotFound, "has only rank 0"},
      {{"warm", "nobody", "int8"}, ExitCode::kNotFound, "there is no model 'nobody'"},
      {{"warm", runner_.models() + "/none", "int8"}, ExitCode::kNotFound, "there is no"},
      {{"warm"}, ExitCode::kUsage, "MODEL"},
  };
  for (const auto& c : cases) {
    const Ran ran = runner_.run(c.words);
    EXPECT_EQ(ran.exit, c.exit) << ::testing::PrintToString(c.words) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr(c.said));
  }
}

TEST_F(ModelCommands, WarmReportsAFullDiskAndGoesOnWithOtherDtypes) {
  runner_.write_model("m");
  const std::string file = artifact_file_name(runner_.model("m"), "bf16", 0, ".safetensors");
  runner_.env().fail_all(EnvCall::kWriteAt, ENOSPC, "filling/" + file);
  const Ran ran = runner_.run({"warm", runner_.model("m"), "--all"});
  EXPECT_EQ(ran.exit, ExitCode::kCacheUnusable);
  EXPECT_THAT(ran.err, HasSubstr("cannot make m/bf16/0/model.safetensors"));
  EXPECT_THAT(ran.err, HasSubstr("No space left"));
  EXPECT_THAT(ran.out, HasSubstr("m/int8/0/model.safetensors is complete"));
}

TEST_F(ModelCommands, WarmReportsAFileThatCannotBeSealed) {
  runner_.write_model("m");
  runner_.env().fail_all(EnvCall::kSync, EIO, "filling/quantized_model_");
  const Ran ran = runner_.run({"warm", runner_.model("m"), "int8"});
  EXPECT_EQ(ran.exit, ExitCode::kFailure);
  EXPECT_THAT(ran.err, HasSubstr("Input/output error"));
}

TEST_F(ModelCommands, WarmStopsOnASignalAndKeepsWhatIsMade) {
  ModelBuilder().tensor("big.weight", DType::kBF16, {32768, 8192}, TensorData::hole()).write(runner_.model("big"));
  runner_.env().before(
      EnvCall::kWriteAt, 3, [] { ::raise(SIGINT); }, "filling/quantized_model_");
  const Ran ran = runner_.run({"warm", runner_.model("big"), "fp32"});
  EXPECT_EQ(ran.exit, ExitCode::kInterrupted);
  EXPECT_THAT(ran.err, HasSubstr("what is made stays"));
  const json files = runner_.run({"ls", "--json"}).json().at("files");
  ASSERT_EQ(files.size(), 1U);
  EXPECT_EQ(files.at(0).at("state"), "filling");
  EXPECT_GT(files.at(0).at("progress"), 0.0);
}

// Files with the attributes of a mount, which do what the test says.
class MountedModel : public ModelCommands {
 protected:
  void SetUp() override {
    if (!attributes_work_in(runner_.dir().path())) {
      GTEST_SKIP() << "the folder for temporary files has no extended attributes";
    }
    runner_.show_mount(::geteuid());
    runner_.write_model("m");
    write_file(file_, std::string(5000, 'x'));
    set_test_attribute(runner_.mount() + "/m", "source", runner_.model("m"));
    set_test_attribute(runner_.mount() + "/m", "dtypes", "bf16 int8");
    set_test_attribute(runner_.mount() + "/m", "refused", "fp8: no wide weights\nnf4: too small\n");
    set_state("filling", "0.2500");
  }

  void set_state(const std::string& state, const std::string& progress) {
    set_test_attribute(file_, "progress", progress);
    set_test_attribute(file_, "state", state);
  }

  // Lets the mount do `act` once the command has asked it to warm the file.
  std::thread when_asked(const std::function<void()>& act) {
    return std::thread([this, act] {
      for (int i = 0; i < 500 && test_attribute(file_, "warm") != "1"; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      act();
    });
  }

  const std::string file_ = runner_.mount() + "/m/int8/0.bin";
};

TEST_F(MountedModel, InfoTellsWhatTheMountTells) {
  set_test_attribute(file_, "pinned", "1");
  set_test_attribute(file_, "hits", "12");
  set_test_attribute(file_, "sqnr", R"({"weights":3,"median_db":20.7,"worst_db":{"a.up_proj":18.25}})");
  for (const std::string& name : {file_, runner_.mount() + "/m/int8", std::string("m/int8")}) {
    const Ran ran = runner_.run_as_is({"info", name, "--json"});
    ASSERT_EQ(ran.exit, ExitCode::kOk) << ran.err;
    EXPECT_EQ(ran.json().at("path"), file_);
    EXPECT_EQ(ran.json().at("state"), "filling");
    EXPECT_EQ(ran.json().at("progress"), 0.25);
    EXPECT_EQ(ran.json().at("size_bytes"), 5000);
    EXPECT_EQ(ran.json().at("hits"), 12);
    EXPECT_EQ(ran.json().at("pinned"), true);
    EXPECT_TRUE(ran.json().at("sha256").is_null());
    EXPECT_EQ(ran.json().at("sqnr").at("median_db"), 20.7);
  }
  EXPECT_THAT(runner_.run_as_is({"info", file_}).out, ContainsRegex("  progress +25%\n"));
  EXPECT_THAT(runner_.run_as_is({"info", file_}).out, ContainsRegex("  sqnr +20.70 dB .*3.*\n +18.25 dB a.up_proj\n"));
  set_test_attribute(file_, "sqnr", "not JSON");
  EXPECT_TRUE(runner_.run_as_is({"info", file_, "--json"}).json().at("sqnr").is_null());
  EXPECT_EQ(runner_.run_as_is({"info", runner_.mount() + "/m/nf4/0.bin"}).exit, ExitCode::kNotFound);
  EXPECT_EQ(runner_.run_as_is({"info", runner_.mount() + "/nobody"}).exit, ExitCode::kNotFound);
  EXPECT_EQ(runner_.run_as_is({"info", runner_.mount()}).json().at("cache_dir"), runner_.cache());
}

TEST_F(MountedModel, InfoOfAModelTakesStatesFromTheMount) {
  for (const std::string& name : {std::string("m"), runner_.mount() + "/m"}) {
    const Ran ran = runner_.run_as_is({"info", name, "--json"});
    ASSERT_EQ(ran.exit, ExitCode::kOk) << ran.err;
    EXPECT_EQ(ran.json().at("source"), runner_.model("m"));
    EXPECT_EQ(dtype_of(ran.json(), "int8").at("state"), "filling");
    EXPECT_EQ(dtype_of(ran.json(), "int8").at("progress"), 0.25);
  }
}

TEST_F(MountedModel, WarmAsksTheMountAndWaits) {
  std::thread mount = when_asked([&] {
    set_state("filling", "0.9");
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    set_state("sealed", "1");
  });
  const Ran ran = runner_.run_as_is({"warm", "m", "int8"});
  mount.join();
  EXPECT_EQ(ran.exit, ExitCode::kOk) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("m/int8/0.bin is complete"));
  EXPECT_FALSE(std::filesystem::exists(runner_.cache())) << "the mount does the work";
}

TEST_F(MountedModel, WarmOfAFolderUsesTheMountThatShowsIt) {
  set_state("sealed", "1");
  const Ran ran = runner_.run_as_is({"warm", runner_.model("m"), "int8"});
  EXPECT_EQ(ran.exit, ExitCode::kOk) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("complete already"));
  EXPECT_FALSE(std::filesystem::exists(runner_.cache()));
}

TEST_F(MountedModel, WarmReportsTheMountsError) {
  std::thread mount = when_asked([&] {
    set_test_attribute(file_, "error", "the disk is full");
    set_state("failed", "0.9");
  });
  const Ran ran = runner_.run_as_is({"warm", file_});
  mount.join();
  EXPECT_EQ(ran.exit, ExitCode::kFailure);
  EXPECT_THAT(ran.err, HasSubstr("cannot make m/int8/0.bin: the disk is full"));
}

TEST_F(MountedModel, WarmIsTakenBackOnASignal) {
  std::thread mount = when_asked([] { ::kill(::getpid(), SIGTERM); });
  const Ran ran = runner_.run_as_is({"warm", "m", "int8"});
  mount.join();
  EXPECT_EQ(static_cast<int>(ran.exit), 128 + SIGTERM);
  EXPECT_THAT(ran.err, HasSubstr("what is made stays"));
  EXPECT_EQ(test_attribute(file_, "warm"), "0");
}

TEST_F(MountedModel, WarmSaysWhyTheMountDoesNotHaveADtype) {
  const Ran refused = runner_.run_as_is({"warm", "m", "nf4"});
  EXPECT_EQ(refused.exit, ExitCode::kModelUnusable);
  EXPECT_THAT(refused.err, HasSubstr("too small"));
  const Ran unknown = runner_.run_as_is({"warm", "m", "int3"});
  EXPECT_EQ(unknown.exit, ExitCode::kNotFound);
  EXPECT_THAT(unknown.err, HasSubstr("choose from: bf16 int8"));
  EXPECT_EQ(runner_.run_as_is({"warm", runner_.mount(), "--all"}).exit, ExitCode::kUsage);
  make_directories(runner_.mount() + "/.qcache");
  const Ran control = runner_.run_as_is({"warm", runner_.mount() + "/.qcache/status"});
  EXPECT_EQ(control.exit, ExitCode::kNotFound);
  EXPECT_THAT(control.err, HasSubstr("'.qcache'"));
  set_test_attribute(runner_.mount() + "/m", "error", "model.safetensors is cut short");
  const Ran broken = runner_.run_as_is({"warm", "m", "int8"});
  EXPECT_EQ(broken.exit, ExitCode::kModelUnusable);
  EXPECT_THAT(broken.err, HasSubstr("cut short"));
}

}  // namespace
}  // namespace qcache
