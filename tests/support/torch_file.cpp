#include "tests/support/torch_file.h"

#include "core/base/digest.h"

namespace qcache {

using namespace std::string_literals;

std::string little_endian(uint64_t value, size_t width) {
  std::string out;
  for (size_t i = 0; i < width; ++i) {
    out += static_cast<char>(static_cast<unsigned char>(value & 0xFFU));
    value >>= 8U;
  }
  return out;
}

std::string pickle_text(std::string_view text) {
  return 'X' + little_endian(text.size(), 4) + std::string(text);
}

std::string pickle_int(int64_t value) {
  return "\x8a\x08" + little_endian(static_cast<uint64_t>(value), 8);
}

std::string pickle_ints(const std::vector<int64_t>& values) {
  std::string out = "(";
  for (const int64_t value : values) {
    out += pickle_int(value);
  }
  return out + 't';
}

std::string pickle_global(std::string_view module, std::string_view name) {
  return 'c' + std::string(module) + '\n' + std::string(name) + '\n';
}

std::string pickle_call(std::string_view callable, std::string_view arguments) {
  return std::string(callable) + '(' + std::string(arguments) + "tR";
}

std::string pickle_dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string out = "}(";
  for (const auto& [key, value] : items) {
    out += key + value;
  }
  return out + 'u';
}

std::string pickle_of(std::string_view value) {
  return "\x80\x02"s + std::string(value) + '.';
}

std::string pickle_tensor(const TorchView& view, bool legacy) {
  const std::string storage = '(' + pickle_text("storage") + pickle_global("torch", view.type) +
                              pickle_text(view.storage) + pickle_text("cpu") + pickle_int(view.items) +
                              (legacy ? "N" : "") + "tQ";
  return pickle_call(pickle_global("torch._utils", "_rebuild_tensor_v2"),
                     storage + pickle_int(view.offset) + pickle_ints(view.shape) + pickle_ints(view.strides) + '\x89' +
                         pickle_call(pickle_global("collections", "OrderedDict"), ""));
}

std::string pickle_tensors(const std::vector<TorchView>& views, bool legacy) {
  std::vector<std::pair<std::string, std::string>> items;
  items.reserve(views.size());
  for (const TorchView& view : views) {
    items.emplace_back(pickle_text(view.name), pickle_tensor(view, legacy));
  }
  return pickle_dict(items);
}

std::string zip_of(const std::vector<ZipPiece>& members) {
  std::string file;
  std::string directory;
  for (const auto& [name, bytes] : members) {
    const uint32_t crc = crc32(0, std::as_bytes(std::span(bytes)));
    const std::string sizes = little_endian(crc, 4) + little_endian(bytes.size(), 4) + little_endian(bytes.size(), 4) +
                              little_endian(name.size(), 2) + little_endian(0, 2);
    directory.append("PK\1\2\0\0\0\0\0\0\0\0\0\0\0\0"s).append(sizes).append(little_endian(0, 10));
    directory.append(little_endian(file.size(), 4)).append(name);
    file.append("PK\3\4\0\0\0\0\0\0\0\0\0\0"s).append(sizes).append(name).append(bytes);
  }
  const std::string counts = little_endian(members.size(), 2);
  return file + directory + "PK\5\6\0\0\0\0"s + counts + counts + little_endian(directory.size(), 4) +
         little_endian(file.size(), 4) + little_endian(0, 2);
}

std::string torch_zip(std::string_view value, const std::vector<std::pair<std::string, std::string>>& storages) {
  std::vector<ZipPiece> members = {{"archive/data.pkl", pickle_of(value)}, {"archive/byteorder", "little"}};
  for (const auto& [key, bytes] : storages) {
    members.push_back({"archive/data/" + key, bytes});
  }
  members.push_back({"archive/version", "3\n"});
  return zip_of(members);
}

std::string torch_legacy(std::string_view value, const std::vector<std::pair<std::string, std::string>>& storages) {
  std::string keys = "](";
  std::string data;
  for (const auto& [key, bytes] : storages) {
    keys += pickle_text(key);
    data += bytes;
  }
  return "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s + pickle_of(pickle_int(1001)) +
         pickle_of(pickle_dict({{pickle_text("little_endian"), "\x88"}})) + pickle_of(value) + pickle_of(keys + 'e') +
         data;
}

}  // namespace qcache
