// Files of the mount, without a mount: what opening, changing and removing them does, in every state of each.

#include <sys/stat.h>

#include <filesystem>
#include <future>

#include "tests/fs/nodes_fixture.h"

namespace qcache {
namespace {

using NodeFiles = NodesTest;

std::string read_all(Artifact& artifact) {
  std::promise<std::string> answer;
  artifact.read(ByteRange{0, artifact.size_bytes()}, ReadIntent::kWanted,
                [&](const Result<std::span<const std::byte>>& bytes) {
                  EXPECT_THAT(bytes, is_ok());
                  answer.set_value(bytes ? std::string(as_text({bytes->begin(), bytes->end()})) : "");
                });
  return answer.get_future().get();
}

TEST_F(NodeFiles, AFileThatIsMadeIsReadByTheDaemonAndASealedOneByTheKernel) {
  small_model().write(model("m"));
  start();
  const auto filling = file("m/int8/0.bin");
  std::string bytes;
  {
    const auto opened = open(*filling);
    ASSERT_THAT(opened, is_ok());
    EXPECT_EQ(opened->read_through, ReadThrough::kDaemon);
    ASSERT_NE(opened->artifact(), nullptr);
    EXPECT_EQ(node("m/int8/0.bin")->key(), filling->key()) << "the same node before and while it is made";
    bytes = read_all(**opened->artifact());
    EXPECT_EQ(bytes.size(), filling->attributes().size_bytes);
  }
  seal("m/int8/0.bin");
  const auto sealed = file("m/int8/0.bin");
  EXPECT_NE(sealed->key(), filling->key()) << "the kernel opens one inode in one mode only";
  EXPECT_EQ(sealed->inode(), filling->inode());
  EXPECT_EQ(sealed->path(), filling->path());
  const auto opened = open(*sealed);
  ASSERT_THAT(opened, is_ok());
  EXPECT_EQ(opened->read_through, ReadThrough::kBackingFile);
  EXPECT_GE((*opened->artifact())->complete_fd(), 0);
  EXPECT_EQ(read_all(**opened->artifact()), bytes);
  const auto late = open(*filling);
  ASSERT_THAT(late, is_ok());
  EXPECT_EQ(late->read_through, ReadThrough::kDaemon) << "whoever found it before is still answered";
}

TEST_F(NodeFiles, EverySealedFileIsANodeOfItsOwn) {
  small_model().write(model("m"));
  start();
  seal("m/int8/0.bin");
  const auto first = file("m/int8/0.bin");
  ASSERT_THAT(first->remove(), is_ok());
  EXPECT_THAT(open(*first), fails_with(ErrorKind::kSourceChanged, {"m/int8/0.bin"}));
  seal("m/int8/0.bin");
  EXPECT_NE(file("m/int8/0.bin")->key(), first->key()) << "no node is opened with two backing files";
}

TEST_F(NodeFiles, AnArtifactOfAChangedModelIsAnotherNode) {
  small_model().write(model("m"));
  start();
  seal("m/nf4/0.bin");
  const auto filling = file("m/int8/0.bin");
  const auto sealed = file("m/nf4/0.bin");
  const uint64_t size = filling->attributes().size_bytes;
  const int64_t mtime = filling->attributes().mtime_ns;
  small_model().tensor("model.layers.1.self_attn.q_proj.weight", DType::kBF16, {64, 64}).write(model("m"));
  EXPECT_THAT(open(*filling), fails_with(ErrorKind::kSourceChanged, {"m/int8/0.bin"}));
  EXPECT_THAT(open(*sealed), fails_with(ErrorKind::kSourceChanged, {"m/nf4/0.bin"}));
  EXPECT_EQ(filling->attributes().size_bytes, size) << "who has it open is told what he has open";
  EXPECT_EQ(filling->attributes().mtime_ns, mtime);
  EXPECT_GT(find("m/int8/0.bin")->attributes.size_bytes, size);
  EXPECT_NE(node("m/int8/0.bin")->key(), filling->key());
  std::filesystem::remove_all(model("m"));
  EXPECT_THAT(open(*filling), fails_with(ErrorKind::kNotFound, {}));
  EXPECT_EQ(filling->attributes().size_bytes, size);
  EXPECT_THAT(filling->xattrs(), fails_with(ErrorKind::kNotFound, {}));
}

TEST_F(NodeFiles, AFileThatIsNotSettledSaysWhenToAskAgain) {
  small_model().write(model("m"));
  start();
  const int64_t now_ns = node("m/int8/0.bin")->attributes().mtime_ns;
  env_.set_time(now_ns);
  int64_t settles_in_ns = 0;
  // Where the machine is slow it has settled by the time it is opened.
  for (int attempt = 0; attempt < 100 && settles_in_ns == 0; ++attempt) {
    set_mtime(model("m") + "/config.json", now_ns + attempt);
    const auto opened = file("m/int8/0.bin")->open(settles_in_ns);
    EXPECT_TRUE(opened || opened.error().kind == ErrorKind::kBusy);
    EXPECT_EQ(opened.has_value(), settles_in_ns == 0);
  }
  EXPECT_GT(settles_in_ns, 0);
}

TEST_F(NodeFiles, ACompanionIsTheModelsOwnFileInOneState) {
  small_model().file("tokenizer.json", "{}").file("sub/x.txt", "deep").write(model("m"));
  start();
  const auto tokenizer = file("m/int8/0/tokenizer.json");
  EXPECT_EQ(tokenizer->attributes().size_bytes, 2U);
  EXPECT_EQ(tokenizer->attributes().mode, static_cast<mode_t>(S_IFREG | 0644));
  const auto opened = open(*tokenizer);
  ASSERT_THAT(opened, is_ok());
  EXPECT_EQ(opened->read_through, ReadThrough::kBackingFile);
  ASSERT_NE(opened->source(), nullptr);
  EXPECT_EQ(opened->source()->path(), model("m") + "/tokenizer.json");
  EXPECT_EQ(open(*file("m/nf4/16/sub/x.txt"))->source()->path(), model("m") + "/sub/x.txt");
  EXPECT_NE(node("m/nf4/0/tokenizer.json")->key(), tokenizer->key());

  write_file(model("m") + "/tokenizer.json", "{\"a\":1}");
  EXPECT_THAT(open(*tokenizer), fails_with(ErrorKind::kSourceChanged, {"m/int8/0/tokenizer.json"}));
  EXPECT_EQ(tokenizer->attributes().size_bytes, 2U);
  EXPECT_EQ(find("m/int8/0/tokenizer.json")->attributes.size_bytes, 7U);
  EXPECT_NE(node("m/int8/0/tokenizer.json")->key(), tokenizer->key());
  std::filesystem::remove(model("m") + "/tokenizer.json");
  EXPECT_THAT(open(*tokenizer), fails_with(ErrorKind::kNotFound, {}));
}

TEST_F(NodeFiles, ALinkThatComesInPlaceOfACompanionIsNotFollowedOut) {
  small_model().file("tokenizer.json", "{}").write(model("m"));
  start();
  const auto tokenizer = file("m/int8/0/tokenizer.json");
  std::filesystem::remove(model("m") + "/tokenizer.json");
  make_link("/etc/passwd", model("m") + "/tokenizer.json");
  EXPECT_THAT(open(*tokenizer), fails_with(ErrorKind::kNotFound, {}));
}

TEST_F(NodeFiles, AGeneratedFileWithAnotherTextIsAnotherNode) {
  small_model().write(model("m"));
  start();
  const auto description = file("m/int8/0/qcache.json");
  const auto config = file("m/int8/0/config.json");
  const std::string before = text("m/int8/0/qcache.json");
  EXPECT_EQ(description->attributes().size_bytes, before.size());
  EXPECT_EQ(open(*description)->read_through, ReadThrough::kPageCache);
  EXPECT_EQ(node("m/int8/0/qcache.json")->key(), description->key());
  seal("m/int8/0/model.safetensors");
  EXPECT_THAT(open(*description), fails_with(ErrorKind::kSourceChanged, {"qcache.json"}));
  EXPECT_EQ(description->attributes().size_bytes, before.size()) << "who has it open keeps his";
  EXPECT_NE(text("m/int8/0/qcache.json").find("sqnr_db"), std::string::npos);
  EXPECT_THAT(open(*config), is_ok()) << "it tells no quality";
  write_file(model("m") + "/config.json", R"({"model_type": "qwen2", "hidden_size": 8})");
  EXPECT_THAT(open(*config), fails_with(ErrorKind::kSourceChanged, {"config.json"}));
  EXPECT_NE(text("m/int8/0/config.json").find("hidden_size"), std::string::npos);
  std::filesystem::remove(model("m") + "/config.json");
  EXPECT_THAT(open(*config), fails_with(ErrorKind::kNotFound, {"config.json"}));
}

TEST_F(NodeFiles, AttributesOfASealedFileMayBeKeptAndOthersNot) {
  small_model().file("tokenizer.json", "{}").write(model("m"));
  start();
  for (const char* path : {"m/int8/0.bin", "m/int8/0/config.json", "m/int8/0/tokenizer.json", ".qcache/status"}) {
    EXPECT_EQ(find(path)->attributes.valid_seconds, 0) << path;
  }
  EXPECT_TRUE(node("m/int8/0.bin")->attributes_ask_files());
  for (const char* path : {"", ".qcache", ".qcache/status", "m", "m/int8/0", "m/int8/0/config.json"}) {
    EXPECT_FALSE(node(path)->attributes_ask_files()) << path;
  }
  EXPECT_EQ(find("m/int8/0")->attributes.valid_seconds, 1);
  EXPECT_EQ(find("m/int8/0.bin")->attributes.disk_bytes, 0U);
  seal("m/int8/0.bin");
  const auto found = find("m/int8/0.bin");
  EXPECT_EQ(found->attributes.valid_seconds, 60);
  EXPECT_GT(found->attributes.disk_bytes, 0U);
  EXPECT_EQ(found->attributes.mode, static_cast<mode_t>(S_IFREG | 0644));
  EXPECT_EQ(found->node->attributes().size_bytes, found->attributes.size_bytes);
}

TEST_F(NodeFiles, OnlyFilesOfWeightsHaveControls) {
  small_model().file("tokenizer.json", "{}").write(model("m"));
  start();
  const auto weights = node("m/int8/0.bin");
  EXPECT_EQ(weights->xattrs()->names(),
            std::string("user.qcache.state\0user.qcache.progress\0user.qcache.source\0", 58));
  EXPECT_EQ(xattr("m/int8/0.bin", "state"), "absent");
  for (const char* path : {"", ".qcache", ".qcache/status", "m", "m/int8", "m/int8/0", "m/int8/0/config.json",
                           "m/int8/0/tokenizer.json"}) {
    EXPECT_THAT(set(*node(path), "user.qcache.pinned", "1"), fails_with(ErrorKind::kPermission, {"cannot be set"}))
        << path;
    if (path != std::string_view("m")) {
      EXPECT_EQ(node(path)->xattrs()->names(), "") << path;
    }
  }
  for (const char* name : {"user.qcache.state", "user.other", "pinned", "", "user.qcache."}) {
    EXPECT_THAT(set(*weights, name, "1"), fails_with(ErrorKind::kPermission, {})) << name;
  }
  EXPECT_THAT(set(*weights, "user.qcache.warm", "maybe"), fails_with(ErrorKind::kInvalidArgument, {"takes 1 or 0"}));
  EXPECT_THAT(set(*weights, "user.qcache.pinned", ""), fails_with(ErrorKind::kInvalidArgument, {}));
  EXPECT_THAT(set(*weights, "user.qcache.pinned", "1"), fails_with(ErrorKind::kNotFound, {}));
  seal("m/int8/0.bin");
  EXPECT_EQ(xattr("m/int8/0.bin", "pinned"), "0");
  EXPECT_THAT(set(*weights, "user.qcache.pinned", "yes"), is_ok());
  EXPECT_EQ(xattr("m/int8/0.bin", "pinned"), "1");
  EXPECT_EQ(xattr("m/int8/0.bin", "progress"), "1.0000");
  EXPECT_EQ(xattr("m/int8/0.bin", "sha256").size(), 64U);
  EXPECT_NE(xattr("m/int8/0.bin", "sqnr"), "");
  EXPECT_TRUE(is_own_xattr("user.qcache.x"));
  EXPECT_FALSE(is_own_xattr("security.selinux"));
}

TEST_F(NodeFiles, RemovingDropsBytesOfQcacheAndNothingElse) {
  small_model().file("tokenizer.json", "{}").write(model("m"));
  start();
  seal("m/int8/0.bin");
  seal("m/int8/0/model.safetensors");
  seal("m/nf4/0.bin");
  for (const char* path : {"", ".qcache", ".qcache/status"}) {
    EXPECT_THAT(node(path)->remove(), fails_with(ErrorKind::kPermission, {})) << path;
  }
  for (const char* path : {"m/int8/0/config.json", "m/int8/0/tokenizer.json", "m/int8/16", "m/int8/16/lora",
                           "m/int8/16/model.safetensors"}) {
    EXPECT_THAT(node(path)->remove(), is_ok()) << path;
  }
  EXPECT_EQ(read_file(model("m") + "/tokenizer.json"), "{}");
  EXPECT_EQ(xattr("m/int8/16/model.safetensors", "state"), "sealed") << "it is rank 0's";
  EXPECT_THAT(node("m/int8/0")->remove(), is_ok());
  EXPECT_EQ(xattr("m/int8/0/model.safetensors", "state"), "absent");
  EXPECT_EQ(xattr("m/int8/0.bin", "state"), "sealed");
  EXPECT_THAT(node("m/w8a8")->remove(), is_ok());
  EXPECT_EQ(xattr("m/int8/0.bin", "state"), "absent");
  EXPECT_EQ(xattr("m/nf4/0.bin", "state"), "sealed");
  EXPECT_THAT(node("m")->remove(), is_ok());
  EXPECT_EQ(xattr("m/nf4/0.bin", "state"), "absent");
  EXPECT_TRUE(std::filesystem::exists(model("m") + "/model.safetensors"));
}

TEST_F(NodeFiles, WhatWasCachedOfABrokenModelCanBeRemoved) {
  small_model().write(model("m"));
  start();
  seal("m/int8/0.bin");
  const std::string backing = xattr("m/int8/0.bin", "backing");
  EXPECT_TRUE(std::filesystem::exists(backing));
  write_file(model("m") + "/model.safetensors", "x");
  EXPECT_THAT(node("m")->remove(), is_ok());
  EXPECT_FALSE(std::filesystem::exists(backing));
}

}  // namespace
}  // namespace qcache
