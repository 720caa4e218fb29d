#include "tests/tools/command_runner.h"

#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "core/engine/engine.h"
#include "tests/support/model_builder.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

constexpr std::array kWithCacheDir = {"ls", "info", "warm", "rm", "gc", "verify", "pin", "unpin"};

}  // namespace

CommandRunner::CommandRunner() {
  make_directories(models());
  write_file(dir_ / "mountinfo", "");
}

Ran CommandRunner::run(std::vector<std::string> words) {
  if (std::find(kWithCacheDir.begin(), kWithCacheDir.end(), words.at(0)) != kWithCacheDir.end()) {
    words.insert(words.begin() + 1, {"--cache-dir", cache()});
  }
  return run_with(words, false, nullptr);
}

Ran CommandRunner::run_as_is(const std::vector<std::string>& words) {
  return run_with(words, false, nullptr);
}

Ran CommandRunner::run_on_terminal(const std::vector<std::string>& words, const std::string& answer) {
  std::istringstream answers(answer);
  return run_with(words, true, &answers);
}

Ran CommandRunner::run_with(const std::vector<std::string>& words, bool terminal, std::istream* answers) {
  std::ostringstream out;
  std::ostringstream err;
  CommandContext context{env_, out, err};
  context.out_is_terminal = terminal;
  context.in = answers;
  context.ask_above_bytes = ask_above_bytes_.value_or(context.ask_above_bytes);
  context.mount_table = dir_ / "mountinfo";
  Ran ran;
  ran.exit = run_command("qcache", words, context);
  ran.out = out.str();
  ran.err = err.str();
  return ran;
}

void CommandRunner::write_model(const std::string& name) const {
  ModelBuilder builder;
  builder.config(R"({"model_type":"qwen2","architectures":["Qwen2ForCausalLM"],"torch_dtype":"bfloat16"})")
      .tensor("model.embed_tokens.weight", DType::kBF16, {128, 64})
      .tensor("model.layers.0.mlp.up_proj.weight", DType::kBF16, {256, 128})
      .tensor("model.norm.weight", DType::kBF16, {64})
      .write(model(name));
}

void CommandRunner::warm(const std::string& name, const std::string& dtype) {
  const Ran ran = run({"warm", model(name), dtype, "0.bin"});
  if (ran.exit != ExitCode::kOk) {
    throw std::runtime_error("cannot warm " + name + ": " + ran.err);
  }
}

void CommandRunner::begin(const std::string& name, const std::string& dtype) {
  EngineOptions options;
  options.roots = {model(name)};
  options.cache_directory = cache();
  options.threads = 1;
  const auto engine = Engine::start(env_, options);
  const auto opened = engine ? (*engine)->open({name, find_scheme(dtype), 0}) : fail(engine.error());
  if (!opened) {
    throw std::runtime_error("cannot begin " + name + ": " + opened.error().message);
  }
}

void CommandRunner::show_mount(uint32_t user_id) {
  write_file(mount() + "/.qcache/status", R"({"cache_dir": ")" + cache() + "\"}");
  write_file(mount() + "/.qcache/errors", "");
  write_file(dir_ / "mountinfo", "41 22 0:39 / " + mount() + " rw,relatime shared:7 - fuse.qcache " + models() +
                                     " rw,user_id=" + std::to_string(user_id) + ",group_id=0,default_permissions\n");
}

std::string CommandRunner::sealed_path(const std::string& name, const std::string& dtype) const {
  return cache() + '/' + artifact_file_name(model(name), dtype, 0);
}

EnvironmentValue::EnvironmentValue(const char* name, const char* value) : name_(name) {
  // Tests change the environment before their threads start. NOLINTBEGIN(concurrency-mt-unsafe)
  if (const char* const previous = std::getenv(name); previous != nullptr) {
    previous_ = previous;
    was_set_ = true;
  }
  value != nullptr ? ::setenv(name, value, 1) : ::unsetenv(name);
}

EnvironmentValue::~EnvironmentValue() {
  was_set_ ? ::setenv(name_, previous_.c_str(), 1) : ::unsetenv(name_);
  // NOLINTEND(concurrency-mt-unsafe)
}

void set_test_attribute(const std::string& path, const std::string& name, const std::string& value) {
  if (::setxattr(path.c_str(), ("user.qcache." + name).c_str(), value.data(), value.size(), 0) != 0) {
    throw std::runtime_error("cannot set an extended attribute of " + path + " (the folder for tests must allow them)");
  }
}

std::string test_attribute(const std::string& path, const std::string& name) {
  std::array<char, 4096> value{};
  const ssize_t size = ::getxattr(path.c_str(), ("user.qcache." + name).c_str(), value.data(), value.size());
  return size > 0 ? std::string(value.data(), static_cast<size_t>(size)) : "";
}

bool attributes_work_in(const std::string& folder) {
  const bool works = ::setxattr(folder.c_str(), "user.qcache.probe", "1", 1, 0) == 0;
  ::removexattr(folder.c_str(), "user.qcache.probe");
  return works;
}

}  // namespace qcache
