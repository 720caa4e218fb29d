#include "tools/table_printer.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <ostream>

#include "tools/human_text.h"

namespace qcache {

void TablePrinter::add_row(const std::vector<std::string>& cells) {
  std::vector<std::string>& row = rows_.emplace_back();
  std::transform(cells.begin(), cells.end(), std::back_inserter(row), printable);
}

void TablePrinter::print(std::ostream& out, size_t columns) const {
  constexpr size_t kGap = 2;
  std::vector<size_t> widths;
  std::vector<std::string> titles;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t width = display_width(columns_[i].title);
    for (const auto& row : rows_) {
      width = std::max(width, display_width(row[i]));
    }
    widths.push_back(width);
    titles.push_back(columns_[i].title);
  }
  const size_t all = std::accumulate(widths.begin(), widths.end(), kGap * (widths.size() - 1));
  const bool is_wide = all > columns;
  const auto print_row = [&](const std::vector<std::string>& cells) {
    std::string line;
    if (is_wide) {
      out << cells[0] << '\n';
      line.append(kGap, ' ');
    }
    for (size_t i = is_wide ? 1 : 0; i < cells.size(); ++i) {
      const std::string padding(widths[i] - display_width(cells[i]), ' ');
      line += columns_[i].right ? padding + cells[i] : cells[i] + padding;
      line.append(kGap, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  };
  print_row(titles);
  for (const auto& row : rows_) {
    print_row(row);
  }
}

}  // namespace qcache
