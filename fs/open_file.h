#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "core/engine/engine.h"
#include "core/model/source_file.h"

namespace qcache {

/// How the kernel is to read an open file.
enum class ReadThrough : uint8_t {
  kDaemon,     ///< it asks us for exactly what readers ask for, and keeps nothing
  kPageCache,  ///< it asks us for pages, and keeps them for this open
  /// It reads the file below by itself, where it takes it; else it asks us for pages and keeps them for all opens.
  kBackingFile,
};

/// A file of the mount, opened. Move-only.
struct OpenFile {
  /// Quantized weights, a file of the model's, or the text of a file that qcache writes, as it was when opened.
  std::variant<std::string, OpenArtifact, SourceFile> content;
  ReadThrough read_through = ReadThrough::kPageCache;

  [[nodiscard]] const OpenArtifact* artifact() const { return std::get_if<OpenArtifact>(&content); }
  [[nodiscard]] const SourceFile* source() const { return std::get_if<SourceFile>(&content); }
  [[nodiscard]] const std::string* text() const { return std::get_if<std::string>(&content); }
};

}  // namespace qcache
