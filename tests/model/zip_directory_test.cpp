#include "core/model/zip_directory.h"

#include <gtest/gtest.h>

#include "tests/support/result_matchers.h"
#include "tests/support/torch_file.h"

namespace qcache {
namespace {

using namespace std::string_literals;

Result<ZipDirectory> read(std::string_view file) {
  MemoryBytes source(file);
  return ZipDirectory::read(source);
}

/// `file` with the bytes at `position` (from the end where negative) replaced.
std::string patched(std::string file, ptrdiff_t position, const std::string& bytes) {
  file.replace(static_cast<size_t>(position < 0 ? static_cast<ptrdiff_t>(file.size()) + position : position),
               bytes.size(), bytes);
  return file;
}

const std::string kFile = zip_of({{"r/a", "alpha"}, {"r/b", ""}, {"r/c", "gamma"}});
const auto kDirectory = static_cast<ptrdiff_t>(kFile.find("PK\1\2"));
constexpr ptrdiff_t kEnd = -22;
constexpr ptrdiff_t kEntryBytes = 46 + 3;

TEST(ZipDirectory, FindsStoredMembers) {
  MemoryBytes source(kFile);
  const auto directory = ZipDirectory::read(source);
  ASSERT_THAT(directory, is_ok());
  ASSERT_EQ(directory->entries().size(), 3U);
  EXPECT_EQ(directory->entries()[2].name, "r/c");
  for (const auto& [name, content] : {std::pair("r/a", "alpha"), std::pair("r/b", ""), std::pair("r/c", "gamma")}) {
    const ZipDirectory::Entry* const entry = directory->find(name);
    ASSERT_NE(entry, nullptr);
    const auto place = locate_zip_member(source, *entry);
    ASSERT_THAT(place, is_ok());
    EXPECT_EQ(kFile.substr(place->offset, place->size), content);
  }
  EXPECT_EQ(directory->find("r/A"), nullptr);
  EXPECT_EQ(directory->find(""), nullptr);
}

TEST(ZipDirectory, ACommentMayFollow) {
  EXPECT_THAT(read(patched(kFile, -2, little_endian(4, 2)) + "note"), is_ok());
}

/// kFile with zip64 end records that hold these numbers, and an entry of the directory at `offset`.
std::string with_zip64(uint64_t count, uint64_t size, uint64_t offset, const std::string& short_end) {
  const std::string body = kFile.substr(0, kFile.size() - 22);
  const std::string record = "PK\6\6" + little_endian(44, 8) + little_endian(0, 12) + little_endian(count, 8) +
                             little_endian(count, 8) + little_endian(size, 8) + little_endian(offset, 8);
  const std::string locator = "PK\6\7" + little_endian(0, 4) + little_endian(body.size(), 8) + little_endian(1, 4);
  return body + record + locator + short_end;
}
std::string short_end(uint64_t count, uint64_t size, uint64_t offset) {
  return "PK\5\6" + little_endian(0, 4) + little_endian(count, 2) + little_endian(count, 2) + little_endian(size, 4) +
         little_endian(offset, 4) + little_endian(0, 2);
}

TEST(ZipDirectory, Zip64EndRecordsMustAgree) {
  const auto offset = static_cast<uint64_t>(kDirectory);
  const uint64_t size = kFile.size() - 22 - offset;
  const std::string all_wide = short_end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF);
  const std::string good = with_zip64(3, size, offset, all_wide);
  EXPECT_THAT(read(good), is_ok());
  EXPECT_THAT(read(with_zip64(3, size, offset, short_end(3, size, offset))), is_ok());
  const auto record = static_cast<ptrdiff_t>(kFile.size()) - 22;
  struct Case {
    const char* what;
    std::string file;
    std::vector<std::string> words;
  };
  for (const auto& [what, file, words] : std::initializer_list<Case>{
           {"count differs", with_zip64(3, size, offset, short_end(2, size, offset)), {"contradict"}},
           {"size differs", with_zip64(3, size, offset, short_end(3, size - 1, offset)), {"contradict"}},
           {"offset differs", with_zip64(3, size, offset, short_end(3, size, 0)), {"contradict"}},
           {"offset beyond 64 bits", with_zip64(3, size, ~uint64_t{0} - 3, all_wide), {"before its end records"}},
           {"size beyond 64 bits", with_zip64(3, ~uint64_t{0}, offset, all_wide), {"before its end records"}},
           {"more members than room", with_zip64(~uint64_t{0}, size, offset, all_wide), {"has room for 3"}},
           {"a member too many", with_zip64(4, size, offset, all_wide), {"has room for 3"}},
           {"locator points away", patched(good, record + 56 + 8, little_endian(0, 8)), {"no zip64 end record"}},
           {"locator points out",
            patched(good, record + 56 + 8, little_endian(~uint64_t{0}, 8)),
            {"does not lie before"}},
           {"wrong length", patched(good, record + 4, little_endian(45, 8)), {"no zip64 end record"}},
           {"several disks", patched(good, record + 16, little_endian(1, 4)), {"split"}},
       }) {
    EXPECT_THAT(read(file), fails_with(ErrorKind::kInvalidModel, words)) << what;
  }
}

TEST(ZipDirectory, RefusesWhatItCannotTrust) {
  struct Case {
    const char* what;
    std::string file;
    std::vector<std::string> words;
  };
  const ptrdiff_t second = kDirectory + kEntryBytes;
  for (const auto& [what, file, words] : std::initializer_list<Case>{
           {"nothing", "", {"too short"}},
           {"no end", kFile.substr(0, kFile.size() - 22), {"no end record"}},
           {"cut", kFile.substr(0, kFile.size() - 1), {"no end record"}},
           {"bytes after the end", kFile + "x", {"does not end with its end record"}},
           {"compressed", patched(kFile, kDirectory + 10, little_endian(8, 2)), {"'r/a'", "compressed"}},
           {"sizes differ", patched(kFile, kDirectory + 20, little_endian(4, 4)), {"'r/a'", "compressed"}},
           {"encrypted", patched(kFile, kDirectory + 8, little_endian(1, 2)), {"'r/a'", "encrypted"}},
           {"no name", patched(kFile, kDirectory + 28, little_endian(0, 2)), {"name of 0 bytes"}},
           {"long name", zip_of({{std::string(512, 'n'), ""}}), {"name of 512 bytes"}},
           {"name beyond", patched(kFile, kDirectory + 28, little_endian(0xFFFF, 2)), {"beyond its directory"}},
           {"two of one name", zip_of({{"r/a", "1"}, {"r/b", ""}, {"r/a", "2"}}), {"two members called 'r/a'"}},
           {"overlap", patched(kFile, second + 42, little_endian(1, 4)), {"'r/a'", "overlaps"}},
           {"same header", patched(kFile, second + 42, little_endian(0, 4)), {"overlaps"}},
           {"too long",
            patched(patched(kFile, kDirectory + 20, little_endian(60, 4)), kDirectory + 24, little_endian(60, 4)),
            {"overlaps"}},
           {"into the directory",
            patched(patched(kFile, kDirectory + 20, little_endian(9999, 4)), kDirectory + 24, little_endian(9999, 4)),
            {"'r/a'", "into its directory"}},
           {"header beyond",
            patched(kFile, second + 42, little_endian(0xFFFFFFF0, 4)),
            {"'r/b'", "into its directory"}},
           {"zip64 number missing", patched(kFile, second + 42, little_endian(0xFFFFFFFF, 4)), {"'r/b'", "zip64"}},
           {"fewer members", patched(kFile, kEnd + 8, little_endian(4, 2) + little_endian(4, 2)), {"room for 3"}},
           {"counts differ", patched(kFile, kEnd + 8, little_endian(1, 2)), {"split"}},
           {"directory beyond", patched(kFile, kEnd + 16, little_endian(0xFFFF, 4)), {"before its end records"}},
           {"directory elsewhere", patched(kFile, kEnd + 16, little_endian(0, 4)), {"ends after 0 of its 3"}},
       }) {
    EXPECT_THAT(read(file), fails_with(ErrorKind::kInvalidModel, words)) << what;
  }
}

TEST(ZipDirectory, HugeDirectoriesAreRefusedUnread) {
  /// Claims to be of many GB and fails each read of more than its tail.
  class Huge final : public ByteSource {
   public:
    [[nodiscard]] uint64_t size() const override { return uint64_t{3} << 30; }

   private:
    Status read_inside(uint64_t offset, std::span<std::byte> out) override {
      const std::string end = short_end(3, uint64_t{1} << 30, 0);
      EXPECT_LE(out.size(), 0x10000U + 22);
      for (size_t i = 0; i < out.size(); ++i) {
        const uint64_t from_end = size() - offset - i;
        out[i] = from_end <= end.size() ? static_cast<std::byte>(end[end.size() - from_end]) : std::byte{0};
      }
      return {};
    }
  } huge;
  EXPECT_THAT(ZipDirectory::read(huge), fails_with(ErrorKind::kInvalidModel, {"more than the 67108864"}));
}

TEST(ZipDirectory, LocalHeadersMustAgree) {
  for (const auto& [position, bytes] : std::initializer_list<std::pair<ptrdiff_t, std::string>>{
           {0, "PX"}, {8, little_endian(8, 2)}, {26, little_endian(2, 2)}, {28, little_endian(6, 2)}, {32, "z"}}) {
    const std::string file = patched(kFile, position, bytes);
    MemoryBytes source(file);
    const auto directory = ZipDirectory::read(source);
    ASSERT_THAT(directory, is_ok());
    EXPECT_THAT(locate_zip_member(source, *directory->find("r/a")), fails_with(ErrorKind::kInvalidModel, {"'r/a'"}))
        << position;
  }
}

}  // namespace
}  // namespace qcache
