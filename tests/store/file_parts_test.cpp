#include "core/store/file_parts.h"

#include <gmock/gmock.h>

#include <fcntl.h>

#include <string>

#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"

namespace qcache {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::vector<ByteRange>> all(const TilePlaces& places) {
  std::vector<std::vector<ByteRange>> out;
  EXPECT_THAT(places.for_each([&](uint32_t tile, const std::vector<ByteRange>& ranges) -> Status {
    EXPECT_EQ(tile, out.size());
    out.push_back(ranges);
    return {};
  }),
              is_ok());
  return out;
}

TEST(TilePlaces, AreWhatWasAddedInAnyOrder) {
  const std::vector<std::vector<ByteRange>> given = {
      {{1000, 50}, {200, 30}}, {}, {{uint64_t{1} << 40, uint64_t{3} << 33}}, {{0, 1}, {1, 0}}};
  TilePlaces places;
  EXPECT_TRUE(places.empty());
  for (const auto& ranges : given) {
    places.add(ranges);
  }
  EXPECT_EQ(all(places), given);
  EXPECT_EQ(all(TilePlaces(places.encoded())), given);
}

TEST(TilePlaces, TheRestIsWhatNoTileCovers) {
  TilePlaces places;
  places.add(std::vector<ByteRange>{{40, 10}, {10, 5}});
  places.add(std::vector<ByteRange>{{15, 5}});
  EXPECT_THAT(*places.rest(60), ElementsAre(ByteRange{0, 10}, ByteRange{20, 20}, ByteRange{50, 10}));
  EXPECT_THAT(*places.rest(50), ElementsAre(ByteRange{0, 10}, ByteRange{20, 20}));
  EXPECT_THAT(*TilePlaces().rest(0), IsEmpty());
  EXPECT_THAT(*TilePlaces().rest(7), ElementsAre(ByteRange{0, 7}));
}

TEST(TilePlaces, ThoseThatDoNotFitTheFileAreCorrupt) {
  TilePlaces beyond;
  beyond.add(std::vector<ByteRange>{{40, 10}});
  EXPECT_THAT(beyond.rest(49), fails_with(ErrorKind::kCorrupt, {"do not fit"}));
  TilePlaces twice;
  twice.add(std::vector<ByteRange>{{0, 10}});
  twice.add(std::vector<ByteRange>{{9, 10}});
  EXPECT_THAT(twice.rest(100), fails_with(ErrorKind::kCorrupt, {}));
  TilePlaces endless;
  endless.add(std::vector<ByteRange>{{1, UINT64_MAX}});
  EXPECT_THAT(endless.rest(100), fails_with(ErrorKind::kCorrupt, {}));
  std::vector<uint8_t> cut = beyond.encoded();
  cut.pop_back();
  EXPECT_THAT(TilePlaces(cut).rest(100), fails_with(ErrorKind::kCorrupt, {"damaged"}));
  EXPECT_THAT(TilePlaces(std::vector<uint8_t>(20, 0xFF)).rest(100), fails_with(ErrorKind::kCorrupt, {"damaged"}));
}

class FilePartsTest : public testing::Test {
 protected:
  FilePartsTest() {
    fd_ = std::move(*env_.open(dir_ / "f", O_RDWR | O_CREAT, 0600));
    write(0, text_);
    parts_.places.add(std::vector<ByteRange>{{4, 4}, {12, 2}});
    parts_.places.add(std::vector<ByteRange>{{8, 4}});
    tiles_ = {digest("efghmn"), digest("ijkl")};
    parts_.rest = digest("abcdop");
  }
  static Sha256Digest digest(std::string_view text) { return sha256(std::as_bytes(std::span(text))); }
  void write(uint64_t offset, std::string_view text) {
    EXPECT_THAT(env_.write_at(fd_.get(), std::as_bytes(std::span(text)), offset), is_ok());
  }
  bool holds() { return *has_parts(env_, fd_.get(), text_.size(), parts_, tiles_, {}); }

  const std::string text_ = "abcdefghijklmnop";
  TempDir dir_;
  Env& env_ = Env::posix();
  UniqueFd fd_;
  FileParts parts_;
  std::vector<Sha256Digest> tiles_;
};

TEST_F(FilePartsTest, VouchForEveryByte) {
  EXPECT_TRUE(holds());
  for (size_t i = 0; i < text_.size(); ++i) {
    write(i, "X");
    EXPECT_FALSE(holds()) << i;
    write(i, text_.substr(i, 1));
  }
  EXPECT_TRUE(holds());
  write(text_.size(), "q");
  EXPECT_FALSE(holds()) << "longer";
}

TEST_F(FilePartsTest, AFileIsNotVouchedForByTooFewOrTooManyDigests) {
  tiles_.push_back(tiles_[0]);
  EXPECT_FALSE(holds());
  tiles_.resize(1);
  EXPECT_FALSE(holds());
}

TEST_F(FilePartsTest, TheRootStandsForAllOfThem) {
  const Sha256Digest root = parts_.root(text_.size(), tiles_);
  const auto same = FileParts::decode(parts_.encode());
  ASSERT_THAT(same, is_ok());
  EXPECT_EQ(same->root(text_.size(), tiles_), root);
  EXPECT_NE(parts_.root(text_.size() + 1, tiles_), root);
  EXPECT_NE(parts_.root(text_.size(), std::vector{tiles_[1], tiles_[0]}), root);
  FileParts other = parts_;
  other.rest[0] = static_cast<uint8_t>(other.rest[0] ^ 1U);
  EXPECT_NE(other.root(text_.size(), tiles_), root);
  other = parts_;
  other.places.add({});
  EXPECT_NE(other.root(text_.size(), tiles_), root);
  EXPECT_THAT(FileParts::decode(std::vector<uint8_t>(31)), fails_with(ErrorKind::kCorrupt, {}));
}

}  // namespace
}  // namespace qcache
