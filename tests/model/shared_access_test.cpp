#include "core/model/shared_access.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>
#include <vector>

namespace qcache {
namespace {

constexpr uint32_t kRoot = 0;
constexpr uint32_t kTeam = 100;
constexpr uint32_t kGuests = 200;

/// "640 of 100".
std::string shared(const std::vector<AccessBits>& folders, const std::vector<AccessBits>& things) {
  const SharedAccess access = shared_access(folders, things);
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%03o of %u", static_cast<unsigned>(access.bits), access.gid);
  return text.data();
}

TEST(SharedAccess, IsThatOfOneFileWithoutItsOwnersBits) {
  EXPECT_EQ(shared({}, {{0640, kTeam}}), "040 of 100");
  EXPECT_EQ(shared({}, {{0100604, kTeam}}), "004 of 100");
  EXPECT_EQ(shared({}, {{0600, kTeam}}), "000 of 100");
}

TEST(SharedAccess, IsWhatAllFilesGive) {
  EXPECT_EQ(shared({}, {{0644, kTeam}, {0640, kTeam}}), "040 of 100");
  EXPECT_EQ(shared({}, {{0644, kTeam}, {0604, kTeam}}), "004 of 100");
  EXPECT_EQ(shared({}, {}), "000 of 0");
}

TEST(SharedAccess, FoldersForbidAllWhereTheyMayNotBeSearched) {
  EXPECT_EQ(shared({{0711, kTeam}}, {{0644, kTeam}}), "044 of 100") << "their names may be guessed";
  EXPECT_EQ(shared({{0744, kTeam}}, {{0644, kTeam}}), "000 of 100");
  EXPECT_EQ(shared({{0755, kTeam}, {0700, kTeam}}, {{0644, kTeam}}), "000 of 100");
  EXPECT_EQ(shared({{0750, kTeam}}, {{0644, kTeam}}), "040 of 100");
}

TEST(SharedAccess, OfSeveralGroupsOneGetsWhatTheOthersGiveToEverybody) {
  EXPECT_EQ(shared({}, {{0640, kTeam}, {0640, kGuests}}), "000 of 100") << "members of one may not read the other's";
  EXPECT_EQ(shared({}, {{0640, kTeam}, {0644, kGuests}}), "040 of 100");
  EXPECT_EQ(shared({}, {{0644, kGuests}, {0640, kTeam}}), "040 of 100");
  EXPECT_EQ(shared({{0750, kTeam}}, {{0644, kRoot}}), "040 of 100") << "a team's folder with files of root";
  EXPECT_EQ(shared({{0755, kRoot}}, {{0640, kTeam}}), "040 of 100");
}

TEST(SharedAccess, AGroupThatIsShutOutStaysSo) {
  EXPECT_EQ(shared({}, {{0604, kTeam}, {0644, kGuests}}), "004 of 100");
  EXPECT_EQ(shared({}, {{0604, kTeam}, {0604, kGuests}}), "000 of 100") << "others may be in either";
}

// Nobody may do more by the mode that comes out than by all the modes that went in, whatever groups he is in.
TEST(SharedAccess, NeverGivesMoreThanItsParts) {
  const std::vector<uint32_t> groups = {kRoot, kTeam, kGuests};
  const std::vector<mode_t> modes = {0600, 0604, 0640, 0644, 0711, 0750, 0755, 0701, 0710, 0744};
  const auto allows = [&](const AccessBits& thing, unsigned member, mode_t wanted) {
    bool in_group = false;
    for (size_t i = 0; i < groups.size(); ++i) {
      in_group = in_group || (groups[i] == thing.gid && (member >> i & 1U) != 0);
    }
    return (((in_group ? thing.mode >> 3 : thing.mode) & wanted) == wanted);
  };
  size_t given = 0;
  for (const mode_t folder : modes) {
    for (const mode_t first : modes) {
      for (const mode_t second : modes) {
        for (unsigned owners = 0; owners < 27; ++owners) {
          const AccessBits passed{folder, groups[owners % 3]};
          const std::vector<AccessBits> things = {{first, groups[owners / 3 % 3]}, {second, groups[owners / 9]}};
          const SharedAccess access = shared_access({{passed}}, things);
          for (unsigned member = 0; member < 8; ++member) {
            if (allows({access.bits, access.gid}, member, 04)) {
              ++given;
              ASSERT_TRUE(allows(passed, member, 01) && allows(things[0], member, 04) && allows(things[1], member, 04))
                  << std::oct << folder << ' ' << first << ' ' << second << ' ' << owners << ' ' << member;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(given, 10'000U);
}

}  // namespace
}  // namespace qcache
