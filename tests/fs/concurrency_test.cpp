#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <thread>

#include "core/base/env.h"
#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountConcurrency = MountTest;
using MountTiming = MountTest;

/// Keeps every tile of the file that is being made from being made, as a stopped process would that makes them all.
class TileLocks {
 public:
  TileLocks(const std::string& map_file, uint32_t tiles) : fd_(::open(map_file.c_str(), O_RDWR | O_CLOEXEC)) {
    for (uint32_t tile = 0; tile < tiles; ++tile) {
      EXPECT_EQ(Env::posix().try_lock_byte(fd_.get(), tile, LockKind::kExclusive), true);
    }
  }
  void release() { fd_.reset(); }

 private:
  UniqueFd fd_;
};

/// 0 where the file reads as expected, from `start` to the end and then from the beginning.
int compare_from(const std::string& path, const std::string& expected, uint64_t start) {
  const UniqueFd fd = open_file(path);
  for (const auto& [from, to] : {std::pair(start, expected.size()), std::pair(uint64_t{0}, start)}) {
    constexpr size_t kPiece = 100'000;
    for (uint64_t offset = from; offset < to; offset += kPiece) {
      if (!reads_as(read_at(fd.get(), offset, kPiece), std::string_view(expected).substr(offset, kPiece))) {
        return 1;
      }
    }
  }
  return 0;
}

// S17: A tile is made once, however many processes read it first at the same time.
TEST_F(MountConcurrency, SixteenFirstReadersMakeEachTileOnce) {
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "int8");
  MountedFs& fs = mount();
  std::vector<std::unique_ptr<Child>> readers;
  for (uint64_t i = 0; i < 16; ++i) {
    readers.push_back(std::make_unique<Child>(
        [&, i] { return compare_from(fs.path("m/int8/0.bin"), expected, i / 4 * (expected.size() / 4)); }));
  }
  for (const auto& reader : readers) {
    EXPECT_EQ(reader->wait(), 0);
  }
  fs.wait_until_sealed("m/int8/0.bin");
  EXPECT_EQ(fs.status("tiles_quantized"), planned_file(model("m"), "int8")->tile_count());
  EXPECT_TRUE(eventually([&] { return fs.status("sealed_since_start") == 1U; })) << "counted once the record is there";
}

// S18: That also holds for several mounts on one cache directory that show the same model folder: they share its files.
TEST_F(MountConcurrency, TwoMountsShareTheWork) {
  tiled_model().write(model("m"));
  const std::string expected = expected_file(model("m"), "fp32");
  MountedFs& one = mount_as("one");
  MountedFs& other = mount_as("other");
  Child first([&] { return compare_from(one.path("m/fp32/0.bin"), expected, 0); });
  Child second([&] { return compare_from(other.path("m/fp32/0.bin"), expected, expected.size() / 3); });
  EXPECT_EQ(first.wait(), 0);
  EXPECT_EQ(second.wait(), 0);
  one.wait_until_sealed("m/fp32/0.bin");
  other.wait_until_sealed("m/fp32/0.bin");
  EXPECT_EQ(one.status("tiles_quantized") + other.status("tiles_quantized"),
            planned_file(model("m"), "fp32")->tile_count());
  EXPECT_EQ(one.status("tiles_rejected") + other.status("tiles_rejected"), 0U);
  for (const MountedFs* fs : {&one, &other}) {
    EXPECT_TRUE(eventually([&] { return fs->status("files_filling") == 0; }));
    EXPECT_EQ(fs->status("files_sealed"), 1U);
    EXPECT_TRUE(reads_as(read_whole(fs->path("m/fp32/0.bin")), expected));
  }
}

// S19: Making one file does not hold up `stat`, `ls` and reads of other files.
TEST_F(MountTiming, OtherFilesStayQuick) {
  huge_model(15).write(model("huge"));
  small_model().write(model("small"));
  MountedFs& fs = mount();
  const std::string expected = read_whole(fs.path("small/int8/0.bin")).bytes;
  fs.wait_until_sealed("small/int8/0.bin");
  const Child loader([&] { return read_whole(fs.path("huge/int8/0.bin"), 1 << 17).error; });
  ASSERT_TRUE(eventually([&] { return fs.status("tiles_quantized") > 10; }));

  std::vector<double> times;
  for (int i = 0; i < 40; ++i) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(stat_of(fs.path("small/nf4/0.bin")).st_blocks, 1);
    EXPECT_EQ(names_in(fs.path("small")).size(), all_dtypes().size());
    EXPECT_TRUE(reads_as(read_whole(fs.path("small/int8/0.bin")), expected));
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  std::printf("stat, ls and a read beside a busy loader: %.1f ms, at most %.1f ms\n", times[times.size() / 2],
              times.back());
  EXPECT_LT(times[times.size() / 2], 200);
  EXPECT_LT(times.back(), 2000);
}

volatile std::sig_atomic_t signals_handled = 0;

// S20: A read that waits ends at once when its process gets a signal: with EINTR where the signal is handled, with the
// process where it is not. A page fault that waits ends with its process. Neither harms the mount.
TEST_F(MountConcurrency, ASignalEndsAWaitingRead) {
  tiled_model().write(model("m"));
  const auto plan = planned_file(model("m"), "int8");
  const uint64_t offset = plan->group(0)->data_offsets[0];
  const std::string expected = expected_file(model("m"), "int8");
  MountedFs& fs = mount();
  const UniqueFd fd = open_file(fs.path("m/int8/0.bin"));
  TileLocks locks(only_filling_file(".map"), plan->tile_count());

  const auto read_one_byte = [&] { return read_at(fd.get(), offset, 1).error; };
  const auto handle_then_read = [&] {
    struct ::sigaction action {};
    action.sa_handler = [](int) { signals_handled = 1; };
    ::sigaction(SIGUSR1, &action, nullptr);
    return read_one_byte();
  };
  const auto fault = [&] {
    const Mapping mapping(fd.get(), expected.size(), MAP_SHARED, PROT_READ);
    return static_cast<int>(mapping.bytes()[offset]);
  };
  struct Case {
    std::function<int()> body;
    int signal;
    int status;
  };
  const std::vector<Case> cases = {{read_one_byte, SIGINT, 128 + SIGINT},
                                   {read_one_byte, SIGTERM, 128 + SIGTERM},
                                   {read_one_byte, SIGKILL, 128 + SIGKILL},
                                   {handle_then_read, SIGUSR1, EINTR},
                                   {fault, SIGKILL, 128 + SIGKILL}};
  for (const auto& [body, signal, status] : cases) {
    Child reader(body);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    reader.signal(signal);
    EXPECT_EQ(reader.wait_for(3), status) << "signal " << signal;
  }

  EXPECT_EQ(names_in(fs.path("m/int8")).size(), 2U);
  locks.release();
  EXPECT_TRUE(reads_as(read_at(fd.get(), 0, expected.size()), expected));
}

// S20: A read that waits ends at once when its process gets a signal: with EINTR where the signal is handled, with the
// process where it is not. A page fault that waits ends with its process. Neither harms the mount.
TEST_F(MountConcurrency, KilledReadersDoNoHarm) {
  tiled_model().write(model("m"));
  huge_model(2).write(model("huge"));
  const std::string expected = expected_file(model("m"), "nf4");
  MountedFs& fs = mount();
  for (int round = 0; round < 30; ++round) {
    const std::string file = fs.path(round % 2 == 0 ? "huge/bf16/0.bin" : "m/nf4/0.bin");
    Child reader([&] { return read_whole(file, size_t{1} << (12 + round % 8)).error; });
    std::this_thread::sleep_for(std::chrono::milliseconds(round * 2));
    reader.signal(round % 3 == 0 ? SIGINT : SIGKILL);
    EXPECT_GE(reader.wait_for(5), 0) << "round " << round;
  }
  EXPECT_TRUE(fs.running());
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/nf4/0.bin")), expected));
  fs.wait_until_sealed("m/nf4/0.bin");
}

// S21: Setting `user.qcache.warm` to 1 makes the whole file in the background, at once; 0 stops that.
TEST_F(MountConcurrency, WarmingMakesTheWholeFile) {
  tiled_model().write(model("m"));
  huge_model(15).write(model("huge"));
  MountedFs& fs = mount();
  EXPECT_EQ(set_xattr(fs.path("m/int8/0.bin"), "user.qcache.warm", "1"), 0);
  fs.wait_until_sealed("m/int8/0.bin");
  EXPECT_TRUE(reads_as(read_whole(fs.path("m/int8/0.bin")), expected_file(model("m"), "int8")));
  EXPECT_EQ(set_xattr(fs.path("m/int8/0.bin"), "user.qcache.warm", "1"), 0) << "it is warm";

  const std::string huge = fs.path("huge/int8/0.bin");
  EXPECT_EQ(set_xattr(huge, "user.qcache.warm", "1"), 0);
  EXPECT_TRUE(eventually([&] { return fs.status("tiles_quantized") > 40; }));
  EXPECT_EQ(set_xattr(huge, "user.qcache.warm", "0"), 0);
  uint64_t made = 0;
  EXPECT_TRUE(eventually([&] {
    const uint64_t before = std::exchange(made, fs.status("tiles_quantized"));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    return made == before;
  })) << "it goes on";
  EXPECT_EQ(fs.xattr("huge/int8/0.bin", "state"), "filling");
}

}  // namespace
}  // namespace qcache
