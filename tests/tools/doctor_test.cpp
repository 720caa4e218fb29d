#include "tools/doctor.h"

#include <gmock/gmock.h>

#include <functional>

#include "tests/tools/command_runner.h"

namespace qcache {
namespace {

using ::testing::HasSubstr;

Machine good_machine() {
  Machine machine;
  machine.is_admin = true;
  machine.kernel = "6.18.1-amd64";
  machine.libfuse = "3.18.3";
  machine.built_with_passthrough = true;
  machine.fusermount = "/usr/bin/fusermount3";
  machine.worker = "/usr/local/libexec/qcache/qcache-worker";
  CacheFacts& cache = machine.caches.emplace_back();
  cache.directory = "/var/cache/qcache";
  cache.exists = true;
  cache.filesystem = "ext4";
  cache.free_bytes = uint64_t{100} << 30U;
  cache.total_bytes = uint64_t{200} << 30U;
  return machine;
}

Health worst(const std::vector<Finding>& findings) {
  Health out = Health::kGood;
  for (const Finding& finding : findings) {
    out = std::max(out, finding.health);
  }
  return out;
}

TEST(Doctor, FindsNothingOnAGoodMachine) {
  for (const Finding& finding : examine(good_machine())) {
    EXPECT_EQ(finding.health, Health::kGood) << finding.subject << ": " << finding.text;
    EXPECT_EQ(finding.fix, "") << finding.subject;
  }
}

TEST(Doctor, NamesEveryBrokenSetUpWithAFix) {
  const struct {
    const char* subject;
    const char* said;
    const char* fix;
    Health health;
    std::function<void(Machine&)> broken;
  } cases[] = {
      {"/dev/fuse", "No such file", "modprobe fuse", Health::kProblem,
       [](Machine& m) {
         m.fuse_device = "No such file or directory";
         m.fuse_device_is_there = false;
       }},
      {"/dev/fuse", "Permission denied", "chmod 666 /dev/fuse", Health::kProblem,
       [](Machine& m) { m.fuse_device = "Permission denied"; }},
      {"qcache-worker", "ranks above 0", "libtorch", Health::kNote, [](Machine& m) { m.worker.clear(); }},
      {"fusermount3", "not found", "apt-get install fuse3", Health::kNote, [](Machine& m) { m.fusermount.clear(); }},
      {"fusermount3", "not found", "apt-get install fuse3", Health::kProblem,
       [](Machine& m) {
         m.fusermount.clear();
         m.is_admin = false;
         m.user = 1000;
       }},
      {"libfuse", "too old", "tools/setup", Health::kWarning,
       [](Machine& m) {
         m.libfuse = "3.14.0";
         m.built_with_passthrough = false;
       }},
      {"passthrough", "Linux 6.1.0-28-amd64 has none", "Linux 6.9", Health::kWarning,
       [](Machine& m) { m.kernel = "6.1.0-28-amd64"; }},
      {"cache filesystem", "overlayfs", "on a disk", Health::kWarning,
       [](Machine& m) { m.caches[0].filesystem = "overlay"; }},
      {"cache filesystem", "nfs4", "local disk", Health::kWarning, [](Machine& m) { m.caches[0].filesystem = "nfs4"; }},
      {"space", "full", "qcache gc", Health::kProblem, [](Machine& m) { m.caches[0].free_bytes = 1 << 20; }},
      {"cache", "not writable", "--cache-dir", Health::kProblem,
       [](Machine& m) { m.caches[0].not_writable = "/var/cache: Read-only file system"; }},
      {"cache owner", "belongs to user 0, not to 1000", "chown -R 1000 /var/cache/qcache", Health::kProblem,
       [](Machine& m) {
         m.user = 1000;
         m.caches[0].owner = 0;
         m.caches[0].owned_by_other = "/var/cache/qcache/index";
       }},
      {"mounts", "stale", "qcache unmount /mnt/old", Health::kProblem,
       [](Machine& m) { m.dead_mounts = {"/mnt/old"}; }},
      {"mounts", "does not answer", "kill -CONT", Health::kProblem, [](Machine& m) { m.silent_mounts = {"/mnt/q"}; }},
      {"allow_other", "user_allow_other", "add that line", Health::kWarning, [](Machine& m) { m.user = 1000; }},
      {"timeouts", "longer than 30 s", "fs.fuse.max_request_timeout=0", Health::kWarning,
       [](Machine& m) { m.request_timeout_s = 30; }},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.said);
    Machine machine = good_machine();
    c.broken(machine);
    const std::vector<Finding> findings = examine(machine);
    const auto found = std::find_if(findings.begin(), findings.end(), [&](const Finding& finding) {
      return finding.subject == c.subject && finding.health == c.health;
    });
    ASSERT_NE(found, findings.end());
    EXPECT_THAT(found->text, HasSubstr(c.said));
    EXPECT_THAT(found->fix, HasSubstr(c.fix));
    EXPECT_GE(worst(findings), c.health);
  }
}

TEST(Doctor, FitsEightyColumnsAndIsJsonWhenAsked) {
  CommandRunner runner;
  const Ran text = runner.run_as_is({"doctor", "--cache-dir", runner.cache()});
  size_t begin = 0;
  for (size_t end = text.out.find('\n'); end != std::string::npos; begin = end + 1, end = text.out.find('\n', begin)) {
    const std::string line = text.out.substr(begin, end - begin);
    EXPECT_TRUE(line.size() <= 80 || line.find(runner.cache()) != std::string::npos) << line;
  }
  EXPECT_THAT(text.out, ::testing::Not(HasSubstr("\x1b"))) << "no colour but on a terminal";
  const auto json = runner.run_as_is({"doctor", "--json", "--cache-dir", runner.cache()}).json();
  EXPECT_TRUE(json.at("works").is_boolean());
  EXPECT_EQ(json.at("findings").size(), examine(good_machine()).size());
}

}  // namespace
}  // namespace qcache
