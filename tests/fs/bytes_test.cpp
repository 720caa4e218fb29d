#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <random>
#include <set>

#include "core/base/digest.h"
#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountBytes = MountTest;
using MountTiming = MountTest;

std::string sha256_hex(std::string_view bytes) {
  return to_hex(sha256(std::as_bytes(std::span(bytes))));
}

// S6: `st_size` is the number of bytes that the file delivers, before anything of it was made and ever after.
// S7: `st_blocks` is what the file occupies on disk, and at least one for a file that has bytes, from before its first
// read on; archivers that look for holes therefore read it.
// S11: The bytes of a file are those of quantizing the model's whole tensors in memory, in every dtype.
// S14: `user.qcache.sha256` of a sealed file is the SHA-256 of its bytes; it comes some time after the file was sealed.
TEST_F(MountBytes, EveryDtypeEqualsTheEagerBytes) {
  small_model().write(model("small"));
  tiled_model().write(model("tiled"));
  MountedFs& fs = mount();
  for (const std::string& name : {std::string("small"), std::string("tiled")}) {
    for (const std::string& dtype : all_dtypes()) {
      SCOPED_TRACE(name + ' ' + dtype);
      const std::string file = name + '/' + dtype + "/0.bin";
      const std::string expected = expected_file(model(name), dtype);
      const struct ::stat before = stat_of(fs.path(file));
      EXPECT_EQ(before.st_size, static_cast<off_t>(expected.size()));
      EXPECT_EQ(before.st_blocks, 1);

      EXPECT_TRUE(reads_as(read_whole(fs.path(file)), expected));
      EXPECT_GT(stat_of(fs.path(file)).st_blocks, 1);
      fs.wait_until_hashed(file);
      EXPECT_EQ(fs.xattr(file, "sha256"), sha256_hex(expected));
      EXPECT_TRUE(reads_as(read_whole(fs.path(file)), expected));
      EXPECT_EQ(stat_of(fs.path(file)).st_size, before.st_size);
      EXPECT_GT(stat_of(fs.path(file)).st_blocks, 0);
    }
  }
  EXPECT_EQ(fs.status("read_errors"), 0U);
}

// S7: `st_blocks` is what the file occupies on disk, and at least one for a file that has bytes, from before its first
// read on; archivers that look for holes therefore read it.
TEST_F(MountBytes, ArchiversThatLookForHolesKeepTheBytes) {
  small_model().write(model("m"));
  const std::string tokenizer(300'000, 't');
  write_file(model("m") + "/tokenizer.json", tokenizer);
  MountedFs& fs = mount();
  const std::vector<std::string> files = {"0.bin", "0/tokenizer.json", "0/model.safetensors", "0/config.json"};
  EXPECT_EQ(stat_of(fs.path("m/int8/0/tokenizer.json")).st_blocks, stat_of(model("m") + "/tokenizer.json").st_blocks);
  for (const std::string& file : files) {
    EXPECT_GE(stat_of(fs.path("m/int8/" + file)).st_blocks, 1) << file;
  }
  EXPECT_GE(stat_of(fs.path(".qcache/status")).st_blocks, 1);
  make_directories(dir() / "out");
  ASSERT_EQ(run_program({"sh", "-c", "tar -C \"$0\" -cSf \"$2\" 0.bin 0 && tar -C \"$1\" -xf \"$2\"", fs.path("m/int8"),
                         dir() / "out", dir() / "a.tar"}),
            0);
  for (const std::string& file : files) {
    const std::string archived = read_file(dir() / ("out/" + file));
    EXPECT_TRUE(reads_as(read_whole(fs.path("m/int8/" + file)), archived)) << file;
    EXPECT_NE(archived, std::string(archived.size(), '\0')) << file;
  }
  EXPECT_EQ(read_file(dir() / "out/0/tokenizer.json"), tokenizer);
}

// S11: The bytes of a file are those of quantizing the model's whole tensors in memory, in every dtype.
TEST_F(MountBytes, ShardsAndHubCachesAreServedLikeOneFile) {
  small_model().shards(3).write(model("sharded"));
  const std::string snapshot = small_model().shards(2).write_hub(models(), "org--hub");
  make_link(snapshot, dir() / "links/org--hub");  // a model's name is in the file, and a snapshot's folder is a hash
  MountedFs& fs = mount();
  for (const char* dtype : {"int8", "nf4"}) {
    EXPECT_TRUE(reads_as(read_whole(fs.path(std::string("sharded/") + dtype + "/0.bin")),
                         expected_file(model("sharded"), dtype)));
    EXPECT_TRUE(reads_as(read_whole(fs.path(std::string("org--hub/") + dtype + "/0.bin")),
                         expected_file(dir() / "links/org--hub", dtype)));
  }
}

// S12: A read of any range gives the bytes that the whole file has there, whatever was made before; a read at or beyond
// the end gives none.
TEST_F(MountBytes, AnyRangeEqualsTheWhole) {
  small_model().write(model("small"));
  tiled_model().write(model("tiled"));
  MountedFs& fs = mount();
  for (const auto& [name, dtype] :
       {std::pair("small", "int8"), std::pair("tiled", "int8"), std::pair("tiled", "nf4")}) {
    SCOPED_TRACE(std::string(name) + ' ' + dtype);
    const std::string expected = expected_file(model(name), dtype);
    const auto plan = planned_file(model(name), dtype);
    std::set<uint64_t> offsets = {0, expected.size()};
    for (const Piece& piece : plan->locate(ByteRange{0, expected.size()})) {  // headers, tensors, trailers
      offsets.insert({piece.range.offset - std::min<uint64_t>(piece.range.offset, 1), piece.range.offset});
    }
    for (uint32_t tile = 0; tile < plan->tile_count(); ++tile) {
      for (const ByteRange& range : plan->tile_file_ranges(plan->tile(tile), 0)) {
        offsets.insert({range.offset - 1, range.end() - 1});
      }
    }
    std::vector<std::pair<uint64_t, size_t>> reads;
    for (const uint64_t offset : offsets) {
      for (const size_t size : {size_t{1}, size_t{2}, size_t{513}, size_t{4096}, size_t{300'001}}) {
        reads.emplace_back(offset, size);
      }
    }
    std::shuffle(reads.begin(), reads.end(), std::mt19937_64(7));
    const std::string file = std::string(name) + '/' + dtype + "/0.bin";
    for (const bool sealed : {false, true}) {
      const UniqueFd fd = open_file(fs.path(file));
      ASSERT_TRUE(fd.valid());
      for (const auto& [offset, size] : reads) {
        ASSERT_TRUE(reads_as(read_at(fd.get(), offset, size), std::string_view(expected).substr(offset, size)))
            << "offset " << offset << ", " << size << " bytes, sealed " << sealed;
      }
      for (const uint64_t beyond : {expected.size() + 1, expected.size() + 4097, size_t{1} << 40}) {
        EXPECT_TRUE(reads_as(read_at(fd.get(), beyond, 100), ""));
      }
      fs.wait_until_sealed(file);
    }
  }
}

// S13: Files can be mapped, shared and privately, while they are made, when they are complete, and across that moment.
TEST_F(MountBytes, MappingsWorkWhileFillingWhenSealedAndAcross) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount();
  const std::string file = fs.path("m/int8/0.bin");
  const std::string expected = expected_file(model("m"), "int8");
  const UniqueFd filling = open_file(file);
  Mapping shared(filling.get(), expected.size(), MAP_SHARED, PROT_READ);
  Mapping own(filling.get(), expected.size(), MAP_PRIVATE, PROT_READ | PROT_WRITE);
  own.data()[expected.size() / 2] ^= 1;  // nobody else's business
  EXPECT_TRUE(same_bytes(shared.bytes().substr(expected.size() - 5000), expected.substr(expected.size() - 5000)));
  EXPECT_TRUE(same_bytes(shared.bytes(), expected));

  fs.wait_until_sealed("m/int8/0.bin");
  EXPECT_TRUE(same_bytes(shared.bytes(), expected));
  const UniqueFd sealed = open_file(file);
  for (const int flags : {MAP_SHARED, MAP_PRIVATE}) {
    const Mapping mapping(sealed.get(), expected.size(), flags, PROT_READ);
    EXPECT_TRUE(same_bytes(mapping.bytes(), expected));
  }
  EXPECT_TRUE(same_bytes(shared.bytes(), expected));
  own.data()[expected.size() / 2] ^= 1;
  EXPECT_TRUE(same_bytes(own.bytes(), expected));
  EXPECT_TRUE(reads_as(read_at(filling.get(), 0, expected.size()), expected));
}

// S15: A read makes the tiles (at most 2 MiB each) that it touches, and a few more only for readers that move forward:
// a piece of a model of any size comes at once.
TEST_F(MountTiming, APieceOfAHugeModelComesAtOnce) {
  huge_model(15).write(model("huge"));
  MountedFs& fs = mount();
  const auto plan = planned_file(model("huge"), "int8");
  const Group last = *plan->group(plan->group_count() - 1);
  const uint64_t middle = last.data_offsets[0] + last.encoding.stored[0].size_bytes() / 2;
  const UniqueFd fd = open_file(fs.path("huge/int8/0.bin"));
  const auto start = std::chrono::steady_clock::now();
  const ReadResult got = read_at(fd.get(), middle, 64 << 10);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  const uint64_t made = fs.status("bytes_quantized");
  std::printf("64 KiB of a 15 GiB model: %.1f ms, %.1f MiB made\n", took.count(),
              static_cast<double>(made) / (1 << 20));
  EXPECT_TRUE(reads_as(got, std::string(64 << 10, '\0')));  // codes of zeros
  EXPECT_LT(took.count(), 1000);
  EXPECT_LE(made, uint64_t{32} << 20);
}

// S16: The daemon's own memory does not grow with what is read: with few cores it stays below 100 MB.
TEST_F(MountTiming, MemoryStaysSmall) {
  if (kSanitized) {
    GTEST_SKIP() << "the sanitizers' own memory is counted too";
  }
  const uint64_t to_read = MountedFs::passthrough_wanted() ? uint64_t{2} << 30 : uint64_t{1} << 28;
  huge_model(5).write(model("huge"));
  MountedFs& fs = mount();
  const UniqueFd fd = open_file(fs.path("huge/int8/0.bin"));
  std::string buffer(size_t{4} << 20, '\0');
  uint64_t most = 0;
  const auto start = std::chrono::steady_clock::now();
  for (uint64_t offset = 0; offset < to_read; offset += buffer.size()) {
    ASSERT_EQ(::pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(buffer.size()));
    most = std::max(most, fs.process_status("RssAnon"));
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::printf("%.2f GiB read for the first time in %.1f s, with at most %.1f MB of memory\n",
              static_cast<double>(to_read) / (1 << 30), took.count(), static_cast<double>(most) / 1024);
  EXPECT_LT(most, 100 * 1024U);
}

}  // namespace
}  // namespace qcache
