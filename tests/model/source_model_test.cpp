#include "core/model/source_model.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "tests/support/fake_env.h"
#include "tests/support/model_builder.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"
#include "tests/support/torch_file.h"

namespace qcache {
namespace {

const std::string kEntry = R"("{}":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";

/// A safetensors file that holds one byte under this name.
std::string file_with(const std::string& tensor) {
  std::string json = '{' + kEntry + '}';
  return safetensors_file(json.replace(json.find("{}", 1), 2, tensor), "x");
}

class SourceModelTest : public testing::Test {
 protected:
  Result<SourceModel> read(Env& env = Env::posix()) { return read_source_model(env, path_, "m"); }
  void put(const std::string& name, const std::string& content) { write_file(path_ + '/' + name, content); }
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + '/' + name; }
  static Result<SourceModel> read_below(const std::vector<std::string>& roots, const std::string& path,
                                        Env& env = Env::posix()) {
    return read_source_model(env, SourceFolders(env, resolve_folders(env, roots)), path, "m");
  }
  static std::vector<std::string> names_of(const SourceModel& model) {
    std::vector<std::string> names;
    for (const TensorInfo& tensor : model.tensors) {
      names.push_back(tensor.name);
    }
    return names;
  }
  static std::vector<std::string> identity_paths(const SourceModel& model) {
    std::vector<std::string> paths;
    for (const SourceFileIdentity& identity : model.identity.files) {
      paths.push_back(identity.path.substr(model.path.size() + 1) + (identity.absent() ? "?" : ""));
    }
    return paths;
  }

  TempDir dir_;
  std::string path_ = dir_ / "m";
};

TEST_F(SourceModelTest, ReadsASingleFile) {
  ModelBuilder()
      .config(R"({"model_type":"qwen2","dtype":"float16"})")
      .tensor("z.weight", DType::kBF16, {8, 4})
      .tensor("a.bias", DType::kF32, {4})
      .write(path_);
  const auto model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_EQ(model->name, "m");
  EXPECT_EQ(model->path, path_);
  EXPECT_EQ(model->files, std::vector<std::string>{file("model.safetensors")});
  EXPECT_EQ(names_of(*model), (std::vector<std::string>{"z.weight", "a.bias"}));
  EXPECT_EQ(model->facts.model_type, "qwen2");
  EXPECT_EQ(model->weight_bytes(), 8U * 4 * 2 + 4 * 4);
  EXPECT_EQ(model->model_dtype(), DType::kBF16);
  EXPECT_EQ(identity_paths(*model), (std::vector<std::string>{"model.safetensors", "config.json"}));
}

TEST_F(SourceModelTest, ReadsShardsByTheIndex) {
  ModelBuilder builder;
  for (const char* name : {"d", "c", "b", "a", "e"}) {
    builder.tensor(name, DType::kF16, {2});
  }
  builder.shards(3).write(path_);
  put("stray.safetensors", "not looked at");
  const auto model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_EQ(names_of(*model), (std::vector<std::string>{"d", "c", "b", "a", "e"}));
  EXPECT_EQ(model->files.size(), 3U);
  for (const TensorInfo& tensor : model->tensors) {
    const std::string bytes = read_file(model->files.at(tensor.file)).substr(tensor.data.offset, tensor.data.size);
    EXPECT_EQ(bytes, as_text(builder.content(tensor.name))) << tensor.name;
  }
  EXPECT_EQ(identity_paths(*model),
            (std::vector<std::string>{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors", "model.safetensors?",
                                      "model.safetensors.index.json", "config.json?"}));
}

TEST_F(SourceModelTest, TheSingleFileComesBeforeTheIndex) {
  ModelBuilder().tensor("shard", DType::kF16, {2}).shards(1).write(path_);
  ModelBuilder().tensor("single", DType::kF16, {2}).write(path_);
  EXPECT_EQ(names_of(read().value()), std::vector<std::string>{"single"});
}

TEST_F(SourceModelTest, ReadsLooseFilesTogether) {
  put("b.safetensors", file_with("x"));
  put("a.safetensors", file_with("y"));
  put("a.fp16.safetensors", file_with("y"));
  put("adapter_model.safetensors", file_with("lora"));
  const auto model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_EQ(names_of(*model), (std::vector<std::string>{"y", "x"}));
  EXPECT_EQ(identity_paths(*model), (std::vector<std::string>{"a.safetensors", "b.safetensors", "model.safetensors?",
                                                              "model.safetensors.index.json?", "pytorch_model.bin?",
                                                              "pytorch_model.bin.index.json?", "config.json?"}));
  put("model.safetensors", file_with("z"));
  EXPECT_THAT(check_unchanged(Env::posix(), model->identity),
              fails_with(ErrorKind::kSourceChanged, {"model.safetensors is new"}));
}

/// A torch checkpoint that holds one byte under each of these names.
std::string torch_with(const std::vector<std::string>& names) {
  std::vector<TorchView> views;
  for (const std::string& name : names) {
    views.push_back({name, "0", "ByteStorage", 1, 0, {1}, {1}});
  }
  return torch_zip(pickle_tensors(views), {{"0", "x"}});
}

TEST_F(SourceModelTest, ReadsATorchCheckpoint) {
  put("pytorch_model.bin", torch_with({"b", "a"}));
  put("training_args.bin", "not looked at");
  const auto model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_EQ(names_of(*model), (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(model->tensors[0].data, model->tensors[1].data);
  EXPECT_EQ(identity_paths(*model), (std::vector<std::string>{"pytorch_model.bin", "model.safetensors?",
                                                              "model.safetensors.index.json?", "config.json?"}));
  put("model.safetensors", file_with("z"));
  EXPECT_THAT(check_unchanged(Env::posix(), model->identity),
              fails_with(ErrorKind::kSourceChanged, {"model.safetensors is new"}));
  EXPECT_EQ(names_of(read().value()), std::vector<std::string>{"z"});
}

TEST_F(SourceModelTest, ReadsTorchShardsByTheIndex) {
  put("pytorch_model-00001-of-00002.bin", torch_with({"a", "c"}));
  put("pytorch_model-00002-of-00002.bin", torch_with({"b"}));
  const std::string index =
      R"({"weight_map":{"a":"pytorch_model-00001-of-00002.bin","b":"pytorch_model-00002-of-00002.bin")";
  put("pytorch_model.bin.index.json", index + R"(,"c":"pytorch_model-00001-of-00002.bin"}})");
  const auto model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_EQ(names_of(*model), (std::vector<std::string>{"a", "c", "b"}));
  EXPECT_EQ(model->tensors[2].file, 1U);
  EXPECT_EQ(identity_paths(*model),
            (std::vector<std::string>{"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin",
                                      "model.safetensors?", "model.safetensors.index.json?", "pytorch_model.bin?",
                                      "pytorch_model.bin.index.json", "config.json?"}));
  put("pytorch_model.bin.index.json", index + "}}");
  EXPECT_THAT(read(),
              fails_with(ErrorKind::kInvalidModel, {"'c'", "/pytorch_model-00001-of-00002.bin", "not in the index"}));
}

TEST_F(SourceModelTest, ReadsLooseTorchFilesTogether) {
  put("x.pth", torch_with({"a"}));
  put("y.bin", torch_with({"b"}));
  put("optimizer.pt", torch_with({"state"}));
  EXPECT_EQ(names_of(read().value()), (std::vector<std::string>{"a", "b"}));
  put("z.pt", torch_with({"a"}));
  EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel, {"'a'", "/x.pth", "/z.pt", "folders of their own"}));
}

TEST_F(SourceModelTest, ABadCheckpointIsNamedWithItsFault) {
  put("pytorch_model.bin", "GGUF");
  EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel, {file("pytorch_model.bin"), "no torch checkpoint"}));
}

TEST_F(SourceModelTest, ACheckpointsDigestCoversWhatSaysWhereItsTensorsLie) {
  const auto digest = [&](const std::string& bytes) {
    put("pytorch_model.bin", bytes);
    return read().value().identity.files.front().header_digest;
  };
  const auto with = [](const std::string& name, const std::string& data) {
    return torch_zip(pickle_tensors({{name, "0", "ByteStorage", 1, 0, {1}, {1}}}), {{"0", data}});
  };
  const Sha256Digest first = digest(with("a", "xy"));
  EXPECT_EQ(digest(with("a", "xy")), first);
  EXPECT_NE(digest(with("b", "xy")), first);
  EXPECT_NE(digest(with("a", "xyz")), first);
}

TEST_F(SourceModelTest, ModelDtypeIsThatOfMostWideBytes) {
  ModelBuilder()
      .config(R"({"dtype":"float64"})")
      .tensor("a", DType::kF32, {3})
      .tensor("b", DType::kF16, {4})
      .tensor("c", DType::kF16, {4})
      .tensor("d", DType::kI64, {100})
      .write(path_);
  EXPECT_EQ(read()->model_dtype(), DType::kF16);
  ModelBuilder().tensor("d", DType::kI64, {100}).write(path_);
  EXPECT_EQ(read()->model_dtype(), DType::kF64);
  ASSERT_THAT(Env::posix().remove(file("config.json")), is_ok());
  EXPECT_EQ(read()->model_dtype(), DType::kF32);
}

TEST_F(SourceModelTest, RejectsShardsThatContradictTheIndex) {
  struct Case {
    const char* what;
    std::string index;
    std::vector<std::pair<std::string, std::string>> shards;
    std::vector<std::string> words;
  };
  const auto index = [](const std::string& map) { return R"({"metadata":{},"weight_map":{)" + map + "}}"; };
  for (const auto& [what, text, shards, words] : std::initializer_list<Case>{
           {"missing shard", index(R"("a":"s1","b":"s2")"), {{"s1", file_with("a")}}, {"/s2 is missing", "complete"}},
           {"outside", index(R"("a":"../s1")"), {{"s1", file_with("a")}}, {"index.json: ", "'../s1'", "plain"}},
           {"named twice", index(R"("a":"s1","a":"s2")"), {{"s1", file_with("a")}}, {"'a'", "twice"}},
           {"not held",
            index(R"("a":"s1","z":"s1")"),
            {{"s1", file_with("a")}},
            {"tensor 'z' in 's1'", "does not hold"}},
           {"not held, sorts first", index(R"("b":"s1","a":"s1")"), {{"s1", file_with("b")}}, {"'a'", "does not hold"}},
           {"elsewhere",
            index(R"("a":"s2","b":"s1")"),
            {{"s1", file_with("a")}, {"s2", file_with("b")}},
            {"tensor 'a' in 's2'", "but it is in", "/s1"}},
           {"in two shards",
            index(R"("a":"s1","b":"s2")"),
            {{"s1", file_with("a")}, {"s2", file_with("a")}},
            {"tensor 'a' is in both", "/s1", "/s2"}},
           {"not in the index",
            index(R"("a":"s1","c":"s2")"),
            {{"s1", file_with("a")}, {"s2", file_with("b")}},
            {"tensor 'b'", "/s2", "not in the index"}},
           {"more than the index, sorts last",
            index(R"("a":"s1","b":"s2")"),
            {{"s1", file_with("a")},
             {"s2", safetensors_file(R"({"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                                     R"("c":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})")}},
            {"tensor 'c'", "not in the index"}},
           {"bad shard", index(R"("a":"s1")"), {{"s1", safetensors_file("{]")}}, {"/s1: ", "not JSON"}},
           {"bad index", "{", {}, {"index.json: ", "not JSON"}},
       }) {
    SCOPED_TRACE(what);
    const TempDir dir;
    path_ = dir.path();
    put("model.safetensors.index.json", text);
    for (const auto& [name, content] : shards) {
      put(name, content);
    }
    EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel, words));
  }
}

TEST_F(SourceModelTest, RejectsUnknownDtypesNamingTensorAndFile) {
  put("model.safetensors", safetensors_file(R"({"x":{"dtype":"F5","shape":[2],"data_offsets":[0,1]}})", "x"));
  EXPECT_THAT(read(),
              fails_with(ErrorKind::kInvalidModel,
                         {file("model.safetensors"), "tensor 'x' has the dtype 'F5', which qcache does not know"}));
}

TEST_F(SourceModelTest, RejectsLooseFilesOfTwoModels) {
  put("a.safetensors", file_with("x"));
  put("b.safetensors", file_with("x"));
  EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel,
                                 {"'x'", "/a.safetensors", "/b.safetensors", "folders of their own"}));
}

TEST_F(SourceModelTest, AFolderWithoutWeightsIsNotFound) {
  EXPECT_THAT(read(), fails_with(ErrorKind::kNotFound, {path_}));
  make_directories(path_);
  EXPECT_THAT(read(), fails_with(ErrorKind::kNotFound, {path_, "no weights"}));
  write_file(dir_ / "file", "");
  EXPECT_THAT(read_source_model(Env::posix(), dir_ / "file", "f"), fails_with(ErrorKind::kNotFound, {"/file"}));
}

TEST_F(SourceModelTest, OnlyRegularFilesAreOpenedAndNothingBlocks) {
  make_directories(file("model.safetensors"));
  EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel, {"model.safetensors", "not a regular file"}));
  std::filesystem::remove(file("model.safetensors"));
  ASSERT_EQ(::mkfifo(file("model.safetensors").c_str(), 0600), 0);
  EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel, {"model.safetensors", "not a regular file"}));
  std::filesystem::remove(file("model.safetensors"));
  make_link("nowhere", file("model.safetensors"));
  EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel, {"model.safetensors is missing, or a link to nothing"}));
}

TEST_F(SourceModelTest, LinksAreFollowedBelowTheModelFolders) {
  put("../elsewhere/weights", file_with("x"));
  make_link("../elsewhere/weights", file("model.safetensors"));
  make_link("m", dir_ / "alias");
  const auto model = read_below({dir_.path()}, dir_ / "alias");
  ASSERT_THAT(model, is_ok());
  EXPECT_EQ(model->path, path_);
  EXPECT_EQ(model->files[0], file("model.safetensors"));
}

TEST_F(SourceModelTest, LinksOutOfTheModelFoldersAreRefusedInEveryFile) {
  const ModelBuilder builder = ModelBuilder().config("{}").tensor("x", DType::kU8, {1}).shards(1);
  for (const char* name : {"model-00001-of-00001.safetensors", "model.safetensors.index.json", "config.json"}) {
    std::filesystem::remove_all(path_);
    builder.write(path_);
    ASSERT_THAT(read(), is_ok());
    std::filesystem::rename(file(name), dir_ / "moved");
    make_link("../moved", file(name));
    EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel,
                                   {std::string(name) + " is a link to", "/moved, which is outside", "mount"}));
    EXPECT_THAT(read_below({dir_.path()}, path_), is_ok());
  }
}

TEST_F(SourceModelTest, LinksOutOfAHubRepoAreRefused) {
  ModelBuilder builder;
  builder.config("{}").tensor("x", DType::kU8, {1});
  path_ = builder.write_hub(dir_.path(), "org--name");
  const auto model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_EQ(model->path, path_);

  write_file(dir_ / "secret", file_with("x"));
  write_file(dir_ / "models--org--name-2/secret", file_with("x"));
  for (const char* target : {"../../../secret", "../../../models--org--name-2/secret"}) {
    std::filesystem::remove(file("model.safetensors"));
    make_link(target, file("model.safetensors"));
    EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel,
                                   {"model.safetensors is a link to", "secret", "outside", "does not follow"}));
  }
  // A subfolder of a snapshot is in the repo as well.
  builder.write(file("transformer"));
  std::filesystem::remove(file("transformer/model.safetensors"));
  make_link("../../../../secret", file("transformer/model.safetensors"));
  path_ += "/transformer";
  EXPECT_THAT(read(), fails_with(ErrorKind::kInvalidModel, {"outside"}));
}

TEST_F(SourceModelTest, AConfigThatCannotBeUsedIsTold) {
  ModelBuilder().tensor("x", DType::kU8, {1}).write(path_);
  put("config.json", "{");
  auto model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_FALSE(model->facts.has_config);
  EXPECT_THAT(model->facts.config_problem, testing::HasSubstr("not JSON"));

  put("config.json", std::string((4U << 20) + 1, ' '));
  model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_THAT(model->facts.config_problem, testing::HasSubstr("more than the 4194304"));
  EXPECT_FALSE(model->identity.files.back().absent());

  std::filesystem::remove(file("config.json"));
  make_directories(file("config.json"));
  model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_THAT(model->facts.config_problem, testing::HasSubstr("not a regular file"));

  std::filesystem::remove(file("config.json"));
  model = read();
  ASSERT_THAT(model, is_ok());
  EXPECT_EQ(model->facts.config_problem, "");
  EXPECT_TRUE(model->identity.files.back().absent());
}

TEST_F(SourceModelTest, AConfigThatMayNotBeReadIsToldButAnIoFailureFails) {
  ModelBuilder().config("{}").tensor("x", DType::kU8, {1}).write(path_);
  FakeEnv env;
  env.fail(EnvCall::kOpen, 2, EACCES, "config.json");  // the first only looks
  EXPECT_THAT(read(env)->facts.config_problem, testing::HasSubstr("config.json"));
  env.fail(EnvCall::kOpen, 1, EIO, "config.json");
  EXPECT_THAT(read(env), fails_with(ErrorKind::kIo, {"config.json"}));
}

TEST_F(SourceModelTest, AFileThatChangesWhileReadIsReported) {
  ModelBuilder builder;
  builder.config("{}").tensor("x", DType::kU8, {1}).shards(1).write(path_);
  for (const char* name : {"model-00001-of-00001.safetensors", "model.safetensors.index.json", "config.json"}) {
    const std::string content = read_file(file(name));
    FakeEnv env;
    env.before(
        EnvCall::kReadAt, 1, [&] { set_mtime(file(name), 1); }, name);
    EXPECT_THAT(read(env), fails_with(ErrorKind::kSourceChanged, {name, "changed while it was read"}));
    FakeEnv shrinking;
    shrinking.before(
        EnvCall::kReadAt, 1, [&] { put(name, ""); }, name);
    EXPECT_THAT(read(shrinking), fails_with(ErrorKind::kSourceChanged, {name, "shorter"}));
    put(name, content);
  }
  EXPECT_THAT(read(), is_ok());
}

TEST_F(SourceModelTest, NoFailingCallIsTakenForAnAnswer) {
  ModelBuilder().config("{}").tensor("x", DType::kU8, {1}).tensor("y", DType::kU8, {1}).shards(2).write(path_);
  for (const EnvCall call :
       {EnvCall::kOpen, EnvCall::kReadAt, EnvCall::kStat, EnvCall::kList, EnvCall::kRealPath, EnvCall::kPathOf}) {
    FakeEnv counting;
    ASSERT_THAT(read(counting), is_ok());
    for (uint64_t nth = 1; nth <= counting.count(call); ++nth) {
      FakeEnv env;
      env.fail(call, nth, EIO);
      EXPECT_THAT(read(env), fails_with(ErrorKind::kIo, {})) << static_cast<int>(call) << ' ' << nth;
    }
  }
}

TEST_F(SourceModelTest, NoFailingReadOfACheckpointIsTakenForAnAnswer) {
  put("pytorch_model.bin", torch_with({"a"}));
  FakeEnv counting;
  ASSERT_THAT(read(counting), is_ok());
  for (uint64_t nth = 1; nth <= counting.count(EnvCall::kReadAt); ++nth) {
    FakeEnv env;
    env.fail(EnvCall::kReadAt, nth, EIO);
    EXPECT_THAT(read(env), fails_with(ErrorKind::kIo, {"pytorch_model.bin"})) << nth;
    FakeEnv shrinking;
    const std::string content = read_file(file("pytorch_model.bin"));
    shrinking.before(EnvCall::kReadAt, nth, [&] { put("pytorch_model.bin", ""); });
    EXPECT_THAT(read(shrinking), fails_with(ErrorKind::kSourceChanged, {"pytorch_model.bin", "shorter"})) << nth;
    put("pytorch_model.bin", content);
  }
}

TEST_F(SourceModelTest, CostsTwoReadsAFile) {
  ModelBuilder builder;
  for (int i = 0; i < 8; ++i) {
    builder.tensor(std::to_string(i), DType::kU8, {1});
  }
  builder.config("{}").shards(4).write(path_);
  FakeEnv env;
  ASSERT_THAT(read(env), is_ok());
  EXPECT_EQ(env.count(EnvCall::kOpen), 2U * 6 + 1) << "each once to look and once to read; the folder";
  EXPECT_EQ(env.count(EnvCall::kReadAt), 4U * 2 + 2);
}

}  // namespace
}  // namespace qcache
