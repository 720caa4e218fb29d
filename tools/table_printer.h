#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace qcache {

/// Rows of text in columns as wide as they need to be, for people to read. One thread.
class TablePrinter {
 public:
  struct Column {
    std::string title;
    bool right = false;  ///< numbers are easier to compare so
  };

  explicit TablePrinter(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// REQUIRES: one cell per column. Cells are made printable here.
  void add_row(const std::vector<std::string>& cells);
  /// The titles, then the rows. No line ends in spaces. Where that is wider than `columns`, first cells for which
  /// there is no room stand in lines of their own, above the others of their row.
  void print(std::ostream& out, size_t columns = kUnlimited) const;

 private:
  static constexpr size_t kUnlimited = static_cast<size_t>(-1);
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace qcache
