#include "tools/suggestion.h"

#include <gtest/gtest.h>

namespace qcache {
namespace {

TEST(Suggestion, IsTheNearestThatMayBeMeant) {
  const std::vector<std::string> models = {"Qwen--Qwen2.5-0.5B", "Llama-3.2-1B", "gpt2"};
  EXPECT_EQ(nearest("LLama-3.2-1b", models), "Llama-3.2-1B") << "letter cases";
  EXPECT_EQ(nearest("Llama-3.2-1", models), "Llama-3.2-1B");
  EXPECT_EQ(nearest("Qwen2.5-0.5B", models), "Qwen--Qwen2.5-0.5B") << "its end";
  EXPECT_EQ(nearest("gtp2", models), "gpt2");
  EXPECT_EQ(nearest("mistral", models), "");
  EXPECT_EQ(nearest("", models), "");
  EXPECT_EQ(nearest(std::string(100'000, 'x'), models), "");
  EXPECT_EQ(nearest("x", {}), "");
  EXPECT_EQ(nearest("ls", {"rm", "ls"}), "ls");
}

TEST(Suggestion, HasWordsForAMessage) {
  EXPECT_EQ(did_you_mean("lss", {"ls", "rm"}), "; did you mean ls?");
  EXPECT_EQ(did_you_mean("frobnicate", {"ls", "rm"}), "");
  EXPECT_EQ(did_you_mean("evilname", {"evil\x1bname"}), "; did you mean evil?name?") << "names come from strangers";
}

}  // namespace
}  // namespace qcache
