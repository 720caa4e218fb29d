// Names of the mount, without a mount: what is looked up, listed and told of the nodes of every class.

#include <sys/stat.h>

#include <filesystem>
#include <functional>
#include <set>

#include "fs/node_table.h"
#include "tests/fs/nodes_fixture.h"

namespace qcache {
namespace {

using Nodes = NodesTest;

/// What no folder has, and what would lead elsewhere if it were put into a path.
const std::vector<std::string> kHostileNames = {"",
                                                ".",
                                                "..",
                                                "/",
                                                "//",
                                                "/etc",
                                                "../m",
                                                "0/config.json",
                                                "m/",
                                                std::string("0\0.bin", 6),
                                                std::string(1, '\0'),
                                                std::string(256, 'x'),
                                                std::string(100'000, '0'),
                                                std::string(10'000, '9') + ".bin",
                                                "0.bin\n",
                                                "\x01\x1f\x7f",
                                                "\xff\xfe",
                                                "\\",
                                                "4294967296",
                                                "-1",
                                                "+0",
                                                " 0",
                                                "%s%n",
                                                "{}"};

TEST_F(Nodes, NoFolderHasHostileNames) {
  small_model().file("sub/x.txt", "x").write(model("m"));
  write_file(dir_ / "models/secret.txt", "x");
  start();
  for (const char* path : {"", ".qcache", "m", "m/int8", "m/int8/0", "m/int8/0/sub", "m/int8/8", "m/int8/8/lora"}) {
    const auto asked = folder(path);
    for (const std::string& name : kHostileNames) {
      EXPECT_THAT(asked->lookup(name), fails_with(ErrorKind::kNotFound, {})) << path << ": '" << name.substr(0, 20);
      EXPECT_FALSE(asked->foretold_load(name));
    }
  }
}

TEST_F(Nodes, NamesWithControlCharactersAreNamesLikeOthers) {
  small_model().file("a\nb\x01.txt", "x").write(model("m\tn"));
  start();
  EXPECT_EQ(list(""), (Names{".qcache/", "m\tn/"}));
  EXPECT_THAT(open(*file("m\tn/int8/0/a\nb\x01.txt")), is_ok());
}

TEST_F(Nodes, TheRootHasModelsAndItsControlFolder) {
  small_model().write(model("a"));
  write_file(model("bad") + "/model.safetensors", "x");
  start();
  EXPECT_EQ(list(""), (Names{".qcache/", "a/", "bad/"}));
  for (const char* name : {"A", "c", ".qcache2", "status"}) {
    EXPECT_THAT(root_->lookup(name), fails_with(ErrorKind::kNotFound, {})) << name;
  }
  std::filesystem::remove_all(model("a"));
  small_model().write(model("c"));
  EXPECT_EQ(list(""), (Names{".qcache/", "bad/", "c/"}));
}

TEST_F(Nodes, EveryFolderListsWhatLookupFinds) {
  small_model().file("tokenizer.json", "{}").file("sub/deep/x.txt", "x").write(model("m"));
  start();
  size_t files = 0;
  const std::function<void(const std::string&)> walk = [&](const std::string& path) {
    const auto entries = folder(path)->list();
    ASSERT_THAT(entries, is_ok()) << path;
    for (const FolderEntry& entry : *entries) {
      const std::string below = path.empty() ? entry.name : path + '/' + entry.name;
      const auto found = find(below);
      ASSERT_THAT(found, is_ok()) << below;
      EXPECT_EQ(found->node->path(), below);
      EXPECT_EQ(found->node->inode(), entry.inode) << below;
      EXPECT_EQ(found->attributes.inode, entry.inode) << below;
      EXPECT_EQ(S_ISDIR(found->attributes.mode), entry.folder) << below;
      EXPECT_EQ(found->attributes.size_bytes == 0, entry.folder || below == ".qcache/errors") << below;
      files += entry.folder ? 0U : 1U;
      if (entry.folder) {
        walk(below);
      }
    }
  };
  walk("");
  EXPECT_GT(files, 100U);
  EXPECT_EQ(engine_->stats().source_bytes_read, 0U) << "looking around reads no tensor";
}

TEST_F(Nodes, ControlFilesTellOfTheMountAndAskNoModel) {
  start();
  EXPECT_EQ(list(".qcache"), (Names{"errors", "metrics", "status"}));
  const auto status = file(".qcache/status");
  EXPECT_EQ(status->model(), "");
  EXPECT_EQ(folder(".qcache")->model(), "");
  EXPECT_EQ(root_->model_of(".qcache"), "");
  const std::string told = text(".qcache/status");
  EXPECT_NE(told.find("\"mount_point\": \"/mnt/q\""), std::string::npos) << told;
  EXPECT_EQ(status->attributes().size_bytes, told.size());
  EXPECT_EQ(status->attributes().mode, static_cast<mode_t>(S_IFREG | 0444));
  EXPECT_EQ(open(*status)->read_through, ReadThrough::kDaemon);
  EXPECT_NE(text(".qcache/metrics").find("qcache_reads_total"), std::string::npos);
  EXPECT_EQ(text(".qcache/errors"), "");
}

TEST_F(Nodes, ARequestNamesTheModelWhoseFilesItAsks) {
  small_model().file("sub/x.txt", "x").write(model("m"));
  start();
  EXPECT_EQ(root_->model_of("m"), "m");
  EXPECT_EQ(root_->model_of("no-such"), "no-such");
  EXPECT_NE(root_->model(), "") << "listing it asks all model folders";
  for (const char* path : {"m", "m/w8a8", "m/int8/0", "m/int8/0.bin", "m/int8/0/sub", "m/int8/0/sub/x.txt",
                           "m/int8/0/config.json", "m/int8/0/model.safetensors"}) {
    EXPECT_EQ(node(path)->model(), "m") << path;
  }
  EXPECT_EQ(folder("m/int8")->model_of("0.bin"), "m");
}

TEST_F(Nodes, ADtypeHasRanksUpToTheSmallerSide) {
  small_model().write(model("m"));
  start();
  for (const char* name : {"0", "0.bin", "64", "64.bin", "1"}) {
    EXPECT_THAT(folder("m/nf4")->lookup(name), is_ok()) << name;
  }
  for (const char* name : {"65", "65.bin", "00", "0.gguf", "config.json", "model.safetensors"}) {
    EXPECT_THAT(folder("m/nf4")->lookup(name), fails_with(ErrorKind::kNotFound, {})) << name;
  }
  EXPECT_THAT(find("m/nf4/65/config.json"), fails_with(ErrorKind::kNotFound, {}));
  EXPECT_EQ(list("m/nf4"), (Names{"0.bin", "0/"}));
  EXPECT_THAT(find("m/no-dtype"), fails_with(ErrorKind::kNotFound, {"no dtype 'no-dtype'"}));
}

TEST_F(Nodes, OtherNamesOfADtypeAreFoldersThatLeadToOneFile) {
  small_model().write(model("m"));
  start();
  EXPECT_EQ(node("m/w8a8/0.bin")->key(), node("m/int8/0.bin")->key());
  EXPECT_EQ(node("m/w8a8/0.bin")->inode(), node("m/int8/0.bin")->inode());
  EXPECT_EQ(node("m/w8a8/0/model.safetensors")->key(), node("m/int8/0/model.safetensors")->key());
  EXPECT_NE(node("m/w8a8")->key(), node("m/int8")->key()) << "the kernel allows a folder one name only";
  EXPECT_NE(node("m/w8a8/0")->key(), node("m/int8/0")->key());
}

TEST_F(Nodes, WhatQcacheAddsHidesWhatTheModelHas) {
  small_model()
      .file("lora/hidden.txt", "x")
      .file("qcache.json", "the model's")
      .file("quanto_qmap.json/x", "x")
      .write(model("m"));
  start();
  EXPECT_EQ(list("m/nf4/0"), (Names{"config.json", "lora/", "model.safetensors", "qcache.json", "quanto_qmap.json/"}));
  EXPECT_EQ(list("m/nf4/0/lora"), Names{"hidden.txt"});
  EXPECT_EQ(list("m/nf4/8"), list("m/nf4/0"));
  EXPECT_EQ(list("m/nf4/8/lora"), (Names{"adapter_config.json", "adapter_model.safetensors"}));
  EXPECT_THAT(folder("m/nf4/8/lora")->lookup("hidden.txt"), fails_with(ErrorKind::kNotFound, {}));
  EXPECT_EQ(text("m/nf4/0/qcache.json").find("the model's"), std::string::npos);
  EXPECT_EQ(list("m/qint8/0"), (Names{"config.json", "lora/", "model.safetensors", "qcache.json", "quanto_qmap.json"}));
  EXPECT_NE(text("m/nf4/8/lora/adapter_config.json").find("/mnt/q/m/nf4/8"), std::string::npos);
}

TEST_F(Nodes, WeightsAndHiddenNamesOfTheModelAreNotPassedThrough) {
  small_model()
      .file("pytorch_model.bin", "x")
      .file(".gitattributes", "x")
      .file("tokenizer.json", "{}")
      .write(model("m"));
  make_link("/etc/passwd", model("m") + "/passwd.txt");
  start();
  EXPECT_EQ(list("m/int8/0"), (Names{"config.json", "model.safetensors", "qcache.json", "tokenizer.json"}));
  for (const char* name : {"pytorch_model.bin", ".gitattributes", "passwd.txt", "lora"}) {
    EXPECT_THAT(folder("m/int8/0")->lookup(name), fails_with(ErrorKind::kNotFound, {})) << name;
  }
}

TEST_F(Nodes, APipelineHasItsWeightsInTheFolderOfItsComponent) {
  const auto part = [](const char* config) {
    return ModelBuilder().config(config).tensor("blocks.0.attn.to_q.weight", DType::kBF16, {64, 64});
  };
  part(R"({"_class_name": "XTransformer2DModel"})").write(model("pipe") + "/transformer");
  part(R"({"_class_name": "AutoencoderKL"})").write(model("pipe") + "/vae");
  std::filesystem::rename(model("pipe") + "/transformer/model.safetensors",
                          model("pipe") + "/transformer/diffusion_pytorch_model.safetensors");
  write_file(model("pipe") + "/model_index.json", R"({"_class_name": "XPipeline"})");
  start();
  EXPECT_THAT(find("pipe/int8"), fails_with(ErrorKind::kNotFound, {"cannot serve a diffusers pipeline"}));
  const std::string weights = "pipe/qfloat8/0/transformer/diffusion_pytorch_model.safetensors";
  EXPECT_EQ(list("pipe/qfloat8/0"), (Names{"model_index.json", "transformer/", "vae/"}));
  EXPECT_EQ(list("pipe/qfloat8/0/transformer"),
            (Names{"config.json", "diffusion_pytorch_model.safetensors", "qcache.json", "quanto_qmap.json"}));
  EXPECT_EQ(xattr(weights, "state"), "absent");
  EXPECT_EQ(node(weights)->path(), weights);
  EXPECT_EQ(list("pipe/qfloat8/8"), (Names{"lora/", "model_index.json", "transformer/", "vae/"}));
  // A file of the source's that is loaded from where it lies.
  EXPECT_NE(open(*file("pipe/qfloat8/0/vae/model.safetensors"))->source(), nullptr);
  seal(weights);
  EXPECT_THAT(node("pipe/qfloat8/0/vae")->remove(), is_ok());
  EXPECT_EQ(xattr(weights, "state"), "sealed") << "nothing of qcache's lies below";
  EXPECT_THAT(node("pipe/qfloat8/0/transformer")->remove(), is_ok());
  EXPECT_EQ(xattr(weights, "state"), "absent");
}

TEST_F(Nodes, AModelThatCannotBeServedIsAnEmptyFolderThatSaysWhy) {
  write_file(model("bad") + "/model.safetensors", "x");
  start();
  EXPECT_EQ(list("bad"), Names{});
  EXPECT_EQ(xattr("bad", "source"), model("bad"));
  EXPECT_NE(xattr("bad", "error"), "");
  EXPECT_EQ(xattr("bad", "dtypes"), "");
  EXPECT_THAT(folder("bad")->lookup("int8"), fails_with(ErrorKind::kInvalidModel, {"model.safetensors"}));
  EXPECT_THAT(node("bad")->remove(), is_ok()) << "what was cached of it can go";
  std::filesystem::remove_all(model("bad"));
  EXPECT_THAT(find("bad"), fails_with(ErrorKind::kNotFound, {}));
}

TEST_F(Nodes, FoldersOfAModelThatIsGoneAreEmptyHanded) {
  small_model().file("sub/x.txt", "x").write(model("m"));
  start();
  std::vector<std::shared_ptr<const FolderNode>> kept;
  for (const char* path : {"m", "m/int8", "m/int8/0", "m/int8/0/sub", "m/int8/8/lora"}) {
    kept.push_back(folder(path));
  }
  std::filesystem::remove_all(model("m"));
  for (const auto& one : kept) {
    EXPECT_THAT(one->list(), fails_with(ErrorKind::kNotFound, {})) << one->path();
    EXPECT_THAT(one->lookup("int8"), fails_with(ErrorKind::kNotFound, {})) << one->path();
    EXPECT_TRUE(S_ISDIR(one->attributes().mode)) << one->path();
  }
}

TEST_F(Nodes, ALoaderIsForetoldByOneNameInTheFolderOfARank) {
  small_model().file("sub/x.txt", "x").write(model("m"));
  start();
  const std::string_view sought = "adapter_config.json";
  for (const char* path : {"m/int8/0", "m/w8a8/16"}) {
    const auto weights = folder(path)->foretold_load(sought);
    ASSERT_TRUE(weights) << path;
    EXPECT_EQ(weights->virtual_path(), "m/int8/0/model.safetensors") << path;
    EXPECT_FALSE(folder(path)->foretold_load("adapter_model.safetensors"));
  }
  for (const char* path : {"", ".qcache", "m", "m/int8", "m/int8/0/sub", "m/int8/16/lora"}) {
    EXPECT_FALSE(folder(path)->foretold_load(sought)) << path;
  }
}

TEST_F(Nodes, TheSharedMountShowsWhatTheSourcesLetOthersRead) {
  small_model().file("tokenizer.json", "{}").file("sub/x.txt", "x").write(model("m"));
  start(true);
  const auto set_mode = [&](const std::string& name, mode_t mode) {
    ASSERT_EQ(::chmod((model("m") + name).c_str(), mode), 0);
  };
  const auto mode = [&](const char* path) { return find(path)->attributes.mode & 07777U; };
  set_mode("", 0755);
  set_mode("/sub", 0755);
  for (const char* name : {"/tokenizer.json", "/sub/x.txt", "/model.safetensors", "/config.json"}) {
    set_mode(name, 0644);
  }
  EXPECT_EQ(mode("m"), 0755U);
  EXPECT_EQ(mode("m/int8/0/sub"), 0755U);
  EXPECT_EQ(mode("m/int8/0/tokenizer.json"), 0644U);
  EXPECT_EQ(mode("m/int8/0/config.json"), 0644U);
  EXPECT_EQ(mode("m/int8/0.bin"), 0644U);
  const auto tokenizer = file("m/int8/0/tokenizer.json");
  const auto config = file("m/int8/0/config.json");
  const auto sub = folder("m/int8/0/sub");
  set_mode("/tokenizer.json", 0600);
  set_mode("/config.json", 0600);
  set_mode("/sub", 0700);
  EXPECT_EQ(mode("m/int8/0/tokenizer.json"), 0600U);
  EXPECT_EQ(mode("m/int8/0/config.json"), 0600U);
  EXPECT_EQ(mode("m/int8/0/sub/x.txt"), 0600U) << "the folder on the way counts";
  EXPECT_EQ(sub->attributes().mode & 07777U, 0700U) << "asked anew";
  // The kernel asks for a node's mode before it opens it: another access is another node.
  EXPECT_NE(node("m/int8/0/tokenizer.json")->key(), tokenizer->key());
  EXPECT_NE(node("m/int8/0/config.json")->key(), config->key());
  EXPECT_THAT(open(*tokenizer), fails_with(ErrorKind::kSourceChanged, {}));
  EXPECT_THAT(open(*config), fails_with(ErrorKind::kSourceChanged, {}));
  EXPECT_LE(find("m/int8/0.bin")->attributes.valid_seconds, 1);
  for (const char* path : {"m", "m/int8", "m/int8/0/sub"}) {
    EXPECT_TRUE(folder(path)->attributes_ask_files()) << path;
  }
  EXPECT_FALSE(root_->attributes_ask_files()) << "every look-up of a name passes it";
}

TEST_F(Nodes, NoNamesOfAModelMakeTwoNodesOne) {
  small_model().file("tokenizer.json", "{}").write(model("m"));
  start();
  // A folder that is called as the key of a file would be, if states and paths could be confused.
  const std::string key(node("m/int8/0/tokenizer.json")->key());
  const std::string state = key.substr(key.rfind('/') + 1);
  write_file(model("m") + "/tokenizer.json" + state + "/x", "x");
  write_file(model("m") + "/tokenizer.json " + state + "/x", "x");
  std::set<std::string> keys;
  for (const std::string& name : list("m/int8/0")) {
    EXPECT_TRUE(keys.insert(node("m/int8/0/" + name.substr(0, name.find('/')))->key()).second) << name;
  }
  EXPECT_EQ(keys.size(), 6U);
}

TEST_F(Nodes, TheTableGivesOneNumberPerKeyUntilItIsForgotten) {
  small_model().write(model("m"));
  start();
  NodeTable table(root_);
  EXPECT_EQ(table.find(NodeTable::kRootId), root_);
  const uint64_t id = table.remember(node("m/int8/0.bin"));
  EXPECT_EQ(table.remember(node("m/w8a8/0.bin")), id);
  const uint64_t other = table.remember(node("m/int8/0"));
  EXPECT_NE(other, id);
  EXPECT_EQ(table.size(), 3U);
  table.forget(id, 1);
  EXPECT_NE(table.find(id), nullptr) << "one look-up is not given back";
  table.forget(id, 1);
  EXPECT_EQ(table.find(id), nullptr);
  table.forget(id, 1);
  table.forget(NodeTable::kRootId, 1'000'000);
  EXPECT_EQ(table.find(NodeTable::kRootId), root_);
  EXPECT_NE(table.remember(node("m/int8/0.bin")), id) << "numbers are never used twice";
  EXPECT_EQ(table.size(), 3U);
}

TEST_F(Nodes, ARetiredNodeKeepsItsNumberBesideTheNextOne) {
  small_model().write(model("m"));
  start();
  NodeTable table(root_);
  const uint64_t old = table.remember(node("m/int8/0.bin"));
  table.retire(node("m/int8/0.bin")->key());
  const uint64_t fresh = table.remember(node("m/int8/0.bin"));
  EXPECT_NE(fresh, old);
  table.forget(old, 1);  // frees the key that was retired
  EXPECT_EQ(table.remember(node("m/int8/0.bin")), fresh);
  table.retire("no such key");
  table.forget(fresh, 2);
  EXPECT_EQ(table.size(), 1U);
}

}  // namespace
}  // namespace qcache
