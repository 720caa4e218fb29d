#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <thread>

#include <fmt/format.h>

#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountMemory = MountTest;

/// A model with this header, whose data are zeros. Returns the bytes of the header.
uint64_t write_model(const std::string& folder, const std::string& header, uint64_t data_bytes) {
  make_directories(folder);
  const std::string file = folder + "/model.safetensors";
  write_file(file, safetensors_file(header));
  std::filesystem::resize_file(file, 8 + header.size() + data_bytes);
  write_file(folder + "/config.json", R"({"model_type":"qwen2","torch_dtype":"bfloat16"})");
  return header.size();
}

/// `count` tiny tensors. Returns the bytes of the header.
uint64_t write_many_tensors(const std::string& folder, size_t count, uint64_t rows, uint64_t columns) {
  std::string header = "{";
  const uint64_t bytes = rows * columns * 2;
  for (size_t i = 0; i < count; ++i) {
    header += fmt::format(R"({}"model.layers.{}.mlp.up_proj.weight":{{"dtype":"BF16","shape":[{},{}],)"
                          R"("data_offsets":[{},{}]}})",
                          i == 0 ? "" : ",", i, rows, columns, i * bytes, (i + 1) * bytes);
  }
  return write_model(folder, header + '}', count * bytes);
}

/// `count` tensors with names of `name_bytes` bytes and more. Returns the bytes of the header.
uint64_t write_long_names(const std::string& folder, size_t count, size_t name_bytes) {
  constexpr uint64_t kBytes = 64;
  std::string header = "{";
  for (size_t i = 0; i < count; ++i) {
    header += fmt::format(R"({}"model.layers.{}.{}.weight":{{"dtype":"BF16","shape":[1,32],"data_offsets":[{},{}]}})",
                          i == 0 ? "" : ",", i, std::string(name_bytes, 'a'), i * kBytes, (i + 1) * kBytes);
  }
  return write_model(folder, header + '}', count * kBytes);
}

/// Calls `work`; the most memory, in bytes, that the daemon had of its own until it returned.
uint64_t most_memory(const MountedFs& fs, const std::function<void()>& work) {
  std::atomic<bool> done = false;
  uint64_t most = 0;
  std::thread watcher([&] {
    while (!done) {
      most = std::max(most, fs.process_status("RssAnon") * 1024);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  work();
  done = true;
  watcher.join();
  return std::max(most, fs.process_status("RssAnon") * 1024);
}

/// As `ls -lR` does.
size_t list_all(const std::string& folder) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    files += entry.is_regular_file() ? static_cast<size_t>(entry.file_size() > 0) : 0;
  }
  return files;
}

constexpr uint64_t kOwnBytes = uint64_t{100} << 20;

// S74: Listing and opening a file take no more either, however many tensors a model has, but for 4 bytes per byte of
// the largest header.
TEST_F(MountMemory, ListingManyTensorsTakesLittleMemory) {
  if (kSanitized) {
    GTEST_SKIP() << "the sanitizers' own memory is counted too";
  }
  for (const auto& [name, rows] : {std::pair("dense", uint64_t{1}), std::pair("quantized", uint64_t{16})}) {
    SCOPED_TRACE(name);
    const uint64_t header = write_many_tensors(model(name), 20'000, rows, 32);
    MountedFs& fs = mount_as(std::string("mnt-") + name);
    size_t files = 0;
    const uint64_t most = most_memory(fs, [&] { files = list_all(fs.path(name)); });
    std::printf("%zu files listed with at most %.1f MB of memory\n", files, static_cast<double>(most) / (1 << 20));
    EXPECT_GT(files, 3 * all_dtypes().size());
    EXPECT_LT(most, kOwnBytes + 4 * header);
    EXPECT_EQ(stat_of(fs.path(std::string(name) + "/int8/0.bin")).st_size,
              static_cast<off_t>(planned_file(model(name), "int8")->size_bytes()));
    EXPECT_EQ(fs.stop(), 0);
    std::filesystem::remove_all(model(name));
  }
}

// S74: Listing and opening a file take no more either, however many tensors a model has, but for 4 bytes per byte of
// the largest header.
TEST_F(MountMemory, LongNamesTakeLittleMemory) {
  if (kSanitized) {
    GTEST_SKIP() << "the sanitizers' own memory is counted too";
  }
  const uint64_t header = write_long_names(model("m"), 6'000, 9'000);
  MountedFs& fs = mount();
  const uint64_t most = most_memory(fs, [&] {
    std::vector<std::thread> listers;
    for (const char* dtype : {"int8", "nf4", "fp8", "qint8"}) {
      listers.emplace_back([&, dtype] { list_all(fs.path("m/" + std::string(dtype))); });
    }
    for (std::thread& lister : listers) {
      lister.join();
    }
    EXPECT_EQ(read_at(open_file(fs.path("m/int8/0.bin")).get(), 0, 1 << 20).error, 0);
  });
  std::printf("four dtypes listed with at most %.1f MB of memory\n", static_cast<double>(most) / (1 << 20));
  EXPECT_LT(most, kOwnBytes + 4 * header);
}

// S74: Listing and opening a file take no more either, however many tensors a model has, but for 4 bytes per byte of
// the largest header.
TEST_F(MountMemory, OpeningManyTensorsTakesLittleMemory) {
  if (kSanitized) {
    GTEST_SKIP() << "the sanitizers' own memory is counted too";
  }
  const uint64_t header = write_many_tensors(model("m"), 200'000, 1, 32);
  MountedFs& fs = mount();
  const uint64_t most = most_memory(fs, [&] {
    std::vector<std::string> files = {"m/bf16/0/model.safetensors"};  // one after the other
    for (const std::string& dtype : all_dtypes()) {
      files.push_back(fmt::format("m/{}/0.bin", dtype));
    }
    for (const std::string& file : files) {
      const UniqueFd fd = open_file(fs.path(file));
      const auto size = static_cast<uint64_t>(stat_of(fs.path(file)).st_size);
      constexpr size_t kBytes = 1 << 20;
      for (const uint64_t offset : {uint64_t{0}, size / 2, size - kBytes}) {
        EXPECT_EQ(read_at(fd.get(), offset, kBytes).error, 0) << file;
      }
    }
  });
  std::printf("the files of all dtypes opened with at most %.1f MB of memory\n", static_cast<double>(most) / (1 << 20));
  EXPECT_LT(most, kOwnBytes + 4 * header);
}

}  // namespace
}  // namespace qcache
