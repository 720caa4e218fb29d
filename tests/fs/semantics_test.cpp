#include <gtest/gtest.h>
#include <algorithm>

#include <filesystem>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "tests/support/test_files.h"

namespace qcache {
namespace {

/// One numbered statement of docs/SEMANTICS.md.
struct Statement {
  int number = 0;
  std::string text;
  std::vector<std::string> tests;
};

std::string with_single_spaces(const std::string& text) {
  return std::regex_replace(text, std::regex("\\s+"), " ");
}

std::vector<Statement> statements() {
  const std::string page = with_single_spaces(read_file(QCACHE_SEMANTICS));
  // - **S1.** text. (`Suite.Test`, `Suite.Test`)
  const std::regex form(R"(\*\*S(\d+)\.\*\* ((?:(?!\*\*S).)*?) \(((?:`Mount\w+\.\w+`(?:, )?)+)\))");
  std::vector<Statement> found;
  for (std::sregex_iterator it(page.begin(), page.end(), form), end; it != end; ++it) {
    Statement statement{std::stoi((*it)[1]), (*it)[2], {}};
    const std::string names = (*it)[3];
    const std::regex name(R"([\w.]+)");
    for (std::sregex_iterator test(names.begin(), names.end(), name); test != end; ++test) {
      statement.tests.push_back(test->str());
    }
    found.push_back(std::move(statement));
  }
  // Numbers stay what they are, so that others may refer to them; new statements stand where they belong.
  std::ranges::sort(found, {}, &Statement::number);
  return found;
}

std::set<std::string> registered_tests() {
  std::set<std::string> names;
  const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const ::testing::TestSuite& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      names.insert(std::string(suite.name()) + '.' + suite.GetTestInfo(j)->name());
    }
  }
  return names;
}

/// The sources of this folder on one line, without the slashes of comments: what a test quotes stands right before it.
std::string quotations() {
  std::string all;
  for (const auto& entry : std::filesystem::directory_iterator(QCACHE_MOUNT_TESTS)) {
    if (entry.path().extension() == ".cpp") {
      all += read_file(entry.path());
    }
  }
  return with_single_spaces(std::regex_replace(all, std::regex("\n// "), " "));
}

TEST(Semantics, EveryStatementHasATestThatQuotesIt) {
  const std::vector<Statement> all = statements();
  ASSERT_GT(all.size(), 40U);
  const std::string sources = quotations();
  const std::set<std::string> registered = registered_tests();
  const std::string page = read_file(QCACHE_SEMANTICS);
  const std::regex any_number(R"(\*\*S\d+)");
  EXPECT_EQ(static_cast<size_t>(std::distance(std::sregex_iterator(page.begin(), page.end(), any_number), {})),
            all.size())
      << "a statement that names no test";
  for (size_t i = 0; i < all.size(); ++i) {
    const Statement& statement = all[i];
    const std::string label = 'S' + std::to_string(statement.number);
    EXPECT_EQ(statement.number, static_cast<int>(i) + 1) << "a number is missing, or there twice";
    for (const std::string& test : statement.tests) {
      EXPECT_TRUE(registered.contains(test)) << label << " names a test that does not exist: " << test;
      const size_t dot = test.find('.');
      const std::string head = " TEST_F(" + test.substr(0, dot) + ", " + test.substr(dot + 1) + ")";
      const size_t at = sources.find(head);
      const size_t quoted = sources.rfind(' ' + label + ": " + statement.text, at);
      ASSERT_NE(at, std::string::npos) << test;
      EXPECT_TRUE(quoted != std::string::npos && sources.find("TEST_F(", quoted) == at + 1)
          << test << " does not quote " << label << ": " << statement.text;
    }
  }
  // And the other way round: no test quotes what the page no longer says.
  const std::regex quotation(R"( S(\d+): )");
  for (std::sregex_iterator it(sources.begin(), sources.end(), quotation), end; it != end; ++it) {
    const auto number = static_cast<size_t>(std::stoul((*it)[1]));
    ASSERT_TRUE(number >= 1 && number <= all.size()) << it->str();
    EXPECT_EQ(sources.compare(static_cast<size_t>(it->position() + it->length()), all[number - 1].text.size(),
                              all[number - 1].text),
              0)
        << "a test quotes S" << number << " otherwise than the page";
  }
}

}  // namespace
}  // namespace qcache
