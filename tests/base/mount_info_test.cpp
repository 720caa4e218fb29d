#include "core/base/mount_info.h"

#include <gmock/gmock.h>
#include <sys/sysmacros.h>

#include "tests/support/fake_env.h"

namespace qcache {
namespace {

TEST(MountInfo, DecodesLinesOfMountinfo) {
  const auto mounts = parse_mount_info(
      "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
      "50 27 0:39 / /mnt/my\\040models\\134\\011x rw,nosuid shared:7 master:1 - fuse.qcache /m "
      "rw,user_id=1000,group_id=7\n"
      "51 27 0:40 /sub /mnt/bind rw - fuse.qcache /m rw,user_id=0\n"
      "not a line\n"
      "52 27 0:41 / /short\n"
      "53 27 0:42 / /no-type rw -\n"
      "54 27 0:43 / /no-options rw - fuse.qcache");
  ASSERT_EQ(mounts.size(), 4U);
  EXPECT_EQ(mounts[0].type, "proc");
  EXPECT_EQ(mounts[0].device, makedev(0, 21));
  EXPECT_EQ(mounts[0].user_id, std::nullopt);
  EXPECT_EQ(mounts[1].mount_point, "/mnt/my models\\\tx");
  EXPECT_EQ(mounts[1].type, "fuse.qcache");
  EXPECT_EQ(mounts[1].root, "/");
  EXPECT_EQ(mounts[1].user_id, 1000U);
  EXPECT_EQ(mounts[2].root, "/sub");
  EXPECT_EQ(mounts[3].mount_point, "/no-options");
}

TEST(MountInfo, LaterMountCoversEarlierOneOnTheSamePlace) {
  const auto mounts = parse_mount_info(
      "50 27 0:39 / /mnt rw - fuse.qcache /m rw\n"
      "51 50 0:40 / /mnt rw - tmpfs tmpfs rw\n");
  ASSERT_EQ(mounts.size(), 1U);
  EXPECT_EQ(mounts[0].type, "tmpfs");
}

TEST(MountInfo, TellsMountsOfQcacheByPathAndDevice) {
  const MountTable table(
      parse_mount_info("27 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
                       "50 27 0:39 / /srv/models/mnt rw - fuse.qcache /m rw,user_id=0\n"
                       "51 27 0:39 /m /srv/bind rw - fuse.qcache /m rw,user_id=0\n"
                       "52 27 0:40 / /srv/other rw - fuse.sshfs host: rw,user_id=0\n"));
  EXPECT_TRUE(table.is_qcache("/srv/models/mnt"));
  EXPECT_TRUE(table.is_qcache("/srv/bind"));
  EXPECT_FALSE(table.is_qcache("/srv/models/mnt/m"));
  EXPECT_FALSE(table.is_qcache("/srv/other"));
  EXPECT_TRUE(table.is_qcache_device(makedev(0, 39)));
  EXPECT_FALSE(table.is_qcache_device(makedev(0, 40)));
  EXPECT_FALSE(table.is_qcache_device(makedev(8, 1)));
}

TEST(MountInfo, TellsFoldersThatMayStop) {
  const MountTable table(
      parse_mount_info("27 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
                       "50 27 0:39 / /a/net rw - nfs4 host:/x rw\n"
                       "51 50 0:40 / /a/net/disk rw - xfs /dev/sdb rw\n"
                       "52 27 0:41 / /b/mnt rw - fuse.qcache /m rw\n"
                       "53 27 0:42 / /new rw - neverheardof x rw\n"));
  EXPECT_TRUE(table.may_stop("/a/net"));
  EXPECT_TRUE(table.may_stop("/a/net/models"));
  EXPECT_FALSE(table.may_stop("/a/net/disk/models"));
  EXPECT_TRUE(table.may_stop("/a")) << "a part of it may";
  EXPECT_TRUE(table.may_stop("/new/models"));
  EXPECT_FALSE(table.may_stop("/b")) << "mounts of qcache are not looked at";
  EXPECT_FALSE(table.may_stop("/another"));
  EXPECT_FALSE(MountTable().may_stop("/x"));
}

TEST(MountInfo, IsReadAgainOnlyWhenItChanges) {
  FakeEnv env;
  MountWatch watch(env);
  const auto first = watch.now();
  const uint64_t opens = env.count(EnvCall::kOpen);
  for (int i = 0; i < 100; ++i) {
    (void)watch.now();
  }
  // Other programs of this machine may mount something meanwhile.
  EXPECT_LT(env.count(EnvCall::kOpen), opens + 50);
  EXPECT_FALSE(first->is_qcache("/"));
}

}  // namespace
}  // namespace qcache
