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
  const size_t rest = std::accumulate(widths.begin() + 1, widths.end(), kGap * (widths.size() - 1));
  if (widths[0] + rest > columns) {
    // The first column is as wide as its widest cell for which there is room; longer ones have lines of their own.
    const size_t room = columns > rest ? columns - rest : 0;
    widths[0] = display_width(titles[0]);
    for (const auto& row : rows_) {
      const size_t width = display_width(row[0]);
      widths[0] = std::max(widths[0], width <= room ? width : 0);
    }
  }
  const auto print_row = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t i = 0; i < cells.size(); ++i) {
      const size_t width = display_width(cells[i]);
      if (width > widths[i]) {
        out << cells[i] << '\n';
      }
      const std::string padding(widths[i] - (width > widths[i] ? 0 : width), ' ');
      const std::string& text = width > widths[i] ? std::string() : cells[i];
      line += columns_[i].right ? padding + text : text + padding;
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
