#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/digest.h"
#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountRank = MountTest;
using Names = std::vector<std::string>;

const std::string kAdapter = "m/nf4/8/lora/adapter_model.safetensors";

/// Processes that `parent` has started.
std::vector<pid_t> workers_of(pid_t parent) {
  std::vector<pid_t> out;
  std::error_code error;
  // Threads end while they are listed.
  std::filesystem::directory_iterator thread("/proc/" + std::to_string(parent) + "/task", error);
  for (; !error && thread != std::filesystem::directory_iterator(); thread.increment(error)) {
    std::ifstream children(thread->path() / "children");
    for (pid_t child = 0; children >> child;) {
      // A daemon that has just mounted has another child for a moment, by which it looks into its mount.
      std::ifstream comm("/proc/" + std::to_string(child) + "/comm");
      if (std::string name; std::getline(comm, name) && name == "qcache-worker") {
        out.push_back(child);
      }
    }
  }
  return out;
}

// S58: `<rank>.bin` and `<rank>/` are there for every rank up to the smaller side of the largest quantized weight, with
// exact sizes; they are listed while they hold bytes. A dtype that quantizes nothing has only rank 0.
TEST_F(MountRank, RanksResolveWhenNamedAndAreListedWhileTheyHoldBytes) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string file = fs.path("m/nf4/8.bin");
  EXPECT_EQ(names_in(fs.path("m/nf4")), (Names{"0", "0.bin"}));
  EXPECT_EQ(stat_error(fs.path("m/nf4/96.bin")), 0);
  EXPECT_EQ(stat_error(fs.path("m/nf4/96")), 0);
  for (const char* name : {"m/nf4/97.bin", "m/nf4/97", "m/nf4/08.bin", "m/bf16/8.bin", "m/fp32/8", "m/fp16/1"}) {
    EXPECT_EQ(stat_error(fs.path(name)), ENOENT) << name;
  }
  EXPECT_EQ(names_in(fs.path("m/nf4")), (Names{"0", "0.bin"})) << "nothing holds bytes yet";
  EXPECT_EQ(fs.status("tiles_quantized"), 0U);

  const auto size = stat_of(file).st_size;
  EXPECT_EQ(read_whole(file).bytes.size(), static_cast<size_t>(size));
  EXPECT_EQ(names_in(fs.path("m/nf4")), (Names{"0", "0.bin", "8.bin"}));
  fs.wait_until_sealed("m/nf4/8.bin");
  EXPECT_EQ(names_in(fs.path("m/nf4")), (Names{"0", "0.bin", "8.bin"}));
  EXPECT_EQ(read_whole(fs.path(kAdapter)).error, 0);
  EXPECT_EQ(names_in(fs.path("m/nf4")), (Names{"0", "0.bin", "8", "8.bin"}));
  EXPECT_EQ(names_in(fs.path("m/int8")), (Names{"0", "0.bin"}));

  EXPECT_TRUE(std::filesystem::remove(file));
  EXPECT_EQ(names_in(fs.path("m/nf4")), (Names{"0", "0.bin", "8"}));
  EXPECT_EQ(stat_of(file).st_blocks, 1) << "dropped, and still there when named";
}

// S102: All ranks that are being made take at most a quarter of the memory that qcache may use; a rank of a weight that
// needs more by itself fails with EIO, and `/.qcache/errors` says how much. Other files are not affected.
TEST_F(MountRank, ARankThatNeedsTooMuchMemoryIsRefusedWithFigures) {
  if (kSanitized) {
    GTEST_SKIP() << "the sanitizers need more memory than the test allows";
  }
  small_model().write(model("m"));
  MountedFs::Setup limited = setup("mnt");
  limited.launcher = {"prlimit", "--data=700000000"};
  MountedFs fs(limited);
  EXPECT_EQ(read_whole(fs.path(kAdapter)).error, EIO);
  const std::string errors = read_whole(fs.path(".qcache/errors")).bytes;
  EXPECT_NE(errors.find("memory are needed"), std::string::npos) << errors;
  EXPECT_NE(errors.find("167M"), std::string::npos) << errors;  // a quarter
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/nf4/0.bin")), expected_file(model("m"), "nf4")));
  EXPECT_EQ(fs.stop(), 0);
}

// S59: `<rank>.bin` and the adapter are the same bytes whenever they are made on machines of one kind (OpenBLAS has
// other kernels for other processors).
TEST_F(MountRank, FilesOfARankAreTheSameBytesAgain) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  const ReadResult checkpoint = read_whole(fs.path("m/int8/8.bin"));
  const ReadResult adapter = read_whole(fs.path(kAdapter));
  ASSERT_EQ(checkpoint.error, 0);
  ASSERT_EQ(adapter.error, 0);
  fs.wait_until_sealed("m/int8/8.bin");
  fs.wait_until_sealed(kAdapter);
  EXPECT_TRUE(reads_as(read_whole(fs.path(kAdapter)), adapter.bytes));
  EXPECT_TRUE(std::filesystem::remove(fs.path("m/int8/8.bin")));
  EXPECT_TRUE(std::filesystem::remove(fs.path(kAdapter)));
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/int8/8.bin")), checkpoint.bytes));
  EXPECT_TRUE(reads_as(read_whole(fs.path(kAdapter)), adapter.bytes));
}

// S60: `<rank>/` is the folder `0/` with `lora/` in it, an adapter that PEFT loads; its `model.safetensors` is that of
// rank 0, and `rm -r` of it leaves that one alone.
TEST_F(MountRank, AFolderOfARankSharesTheWeightsAndAddsAnAdapter) {
  small_model().file("tokenizer.json", "{}").file("lora/hidden.txt", "x").write(model("m"));
  MountedFs& fs = mount();
  Names expected = names_in(fs.path("m/nf4/0"));
  EXPECT_EQ(names_in(fs.path("m/nf4/8")), expected) << "the model has a folder lora of its own";
  EXPECT_EQ(names_in(fs.path("m/nf4/0/lora")), Names{"hidden.txt"});
  EXPECT_EQ(names_in(fs.path("m/nf4/8/lora")), (Names{"adapter_config.json", "adapter_model.safetensors"}));
  EXPECT_EQ(stat_error(fs.path("m/nf4/8/lora/hidden.txt")), ENOENT) << "hidden by ours";
  const auto config = nlohmann::json::parse(read_file(fs.path("m/nf4/8/lora/adapter_config.json")));
  EXPECT_EQ(config.at("r"), 8);
  EXPECT_EQ(config.at("base_model_name_or_path"), fs.path("m/nf4/8"));
  EXPECT_EQ(nlohmann::json::parse(read_file(fs.path("m/nf4/8/qcache.json"))).at("rank"), 8);
  EXPECT_EQ(read_file(fs.path("m/nf4/8/config.json")), read_file(fs.path("m/nf4/0/config.json")));

  const std::string weights = fs.path("m/nf4/8/model.safetensors");
  EXPECT_EQ(stat_of(weights).st_ino, stat_of(fs.path("m/nf4/0/model.safetensors")).st_ino);
  EXPECT_TRUE(reads_as(read_whole(weights), expected_safetensors(model("m"), "nf4")));
  EXPECT_EQ(read_whole(fs.path(kAdapter)).error, 0);
  fs.wait_until_sealed("m/nf4/0/model.safetensors");
  fs.wait_until_sealed(kAdapter);
  EXPECT_EQ(run_program({"rm", "-r", fs.path("m/nf4/8")}), 0);
  EXPECT_EQ(fs.xattr("m/nf4/0/model.safetensors", "state"), "sealed");
  EXPECT_EQ(fs.xattr(kAdapter, "state"), "absent");
  EXPECT_EQ(names_in(fs.path("m/nf4")), (Names{"0", "0.bin"}));
}

// S106: `qcache rm` of a place in a mount drops what is cached there, and lists that only: not what was never made,
// nor, of the folder of a rank above 0, the weights that it shares with rank 0.
TEST_F(MountRank, RmListsWhatItDrops) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  const auto rm = [&](const std::string& place, bool dry_run) {
    std::vector<std::string> words = {MountedFs::program(), "rm", place.empty() ? "" : fs.path(place)};
    if (dry_run) {
      words.emplace_back("--dry-run");
    }
    std::filesystem::remove(dir() / "said");
    const int status = run_program(words, dir() / "said");
    return std::to_string(status) + ' ' + read_file(dir() / "said");
  };
  const auto lines = [](const std::string& said) { return std::count(said.begin(), said.end(), '\n'); };
  EXPECT_TRUE(rm("m/nf4", false).starts_with("3 ")) << "nothing is cached yet: " << rm("m/nf4", false);
  for (const char* file : {"m/nf4/0.bin", "m/nf4/8/model.safetensors", kAdapter.c_str()}) {
    EXPECT_EQ(read_whole(fs.path(file)).error, 0);
  }
  for (const char* file : {"m/nf4/0.bin", "m/nf4/0/model.safetensors", kAdapter.c_str()}) {
    fs.wait_until_sealed(file);
  }
  EXPECT_EQ(set_xattr(fs.path("m/nf4/0/model.safetensors"), "user.qcache.pinned", "1"), 0);
  for (const bool dry_run : {true, false}) {
    const std::string said = rm("m/nf4/8", dry_run);
    EXPECT_NE(said.find(kAdapter), std::string::npos) << said;
    EXPECT_EQ(lines(said), 2) << said;
    EXPECT_EQ(fs.xattr(kAdapter, "state"), dry_run ? "sealed" : "absent");
  }
  EXPECT_EQ(fs.xattr("m/nf4/0/model.safetensors", "state"), "sealed");
  for (const bool dry_run : {true, false}) {
    const std::string said = rm("m", dry_run);
    EXPECT_EQ(lines(said), 3) << said;
  }
  EXPECT_EQ(fs.status("files_sealed"), 0U);
}

// S61: A `qcache-worker` that ends or is killed fails the reads that wait for it with EIO, and `/.qcache/errors` says
// why; other files are not affected, and the next read tries again.
TEST_F(MountRank, AKilledWorkerFailsOneReadAndNothingElse) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  ReadResult adapter;
  std::thread reader([&] { adapter = read_whole(fs.path(kAdapter)); });
  std::vector<pid_t> workers;
  EXPECT_TRUE(eventually([&] {
    workers = workers_of(fs.pid());
    return !workers.empty();
  }));
  for (const pid_t worker : workers) {
    ::kill(worker, SIGKILL);
  }
  reader.join();
  EXPECT_EQ(adapter.error, EIO);
  const std::string errors = read_whole(fs.path(".qcache/errors")).bytes;
  EXPECT_NE(errors.find("signal 9"), std::string::npos) << errors;
  EXPECT_NE(errors.find("_proj.weight"), std::string::npos) << errors;
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/int8/0.bin")), expected_file(model("m"), "int8")));
  // More than one worker was killed: a read right after the first may still hear of another.
  EXPECT_TRUE(eventually([&] { return read_whole(fs.path(kAdapter)).error == 0; }));
  EXPECT_TRUE(fs.running());
}

TEST_F(MountRank, ADaemonThatIsKilledTakesItsWorkersAlong) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  EXPECT_EQ(read_whole(fs.path(kAdapter)).error, 0);
  const std::vector<pid_t> workers = workers_of(fs.pid());
  ASSERT_FALSE(workers.empty());
  fs.kill9();
  for (const pid_t worker : workers) {
    EXPECT_TRUE(eventually([&] {
      return ::kill(worker, 0) != 0 ||
             read_file("/proc/" + std::to_string(worker) + "/stat").find(") Z") != std::string::npos;
    })) << worker;
  }
}

}  // namespace
}  // namespace qcache
