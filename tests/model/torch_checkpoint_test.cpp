#include "core/model/torch_checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"
#include "tests/support/torch_file.h"

namespace qcache {
namespace {

using namespace std::string_literals;

const std::string kGolden = QCACHE_GOLDEN_DIR "/torch/";

Result<std::vector<TensorInfo>> read(std::string_view file) {
  MemoryBytes source(file);
  return find_torch_tensors(source);
}

/// The tensor's bytes, element by element.
std::string content(std::string_view file, const TensorInfo& tensor) {
  const uint64_t item = item_bytes(tensor.dtype);
  if (tensor.strides.empty()) {
    return std::string(file.substr(tensor.data.offset, tensor.data.size));
  }
  std::string out;
  for (uint64_t i = 0; i < tensor.element_count(); ++i) {
    uint64_t position = tensor.data.offset;
    uint64_t rest = i;
    for (size_t d = tensor.shape.size(); d-- > 0; rest /= tensor.shape[d]) {
      position += rest % tensor.shape[d] * tensor.strides[d] * item;
    }
    out += file.substr(position, item);
  }
  return out;
}

std::string hex(std::string_view bytes) {
  return bytes.empty() ? "-" : to_hex({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

std::string shape_text(const Shape& shape) {
  std::string out;
  for (const uint64_t extent : shape) {
    out += (out.empty() ? "" : "x") + std::to_string(extent);
  }
  return out.empty() ? "-" : out;
}

/// What must hold for any file that is accepted.
void expect_sound(const std::vector<TensorInfo>& tensors, uint64_t file_bytes) {
  for (const TensorInfo& tensor : tensors) {
    ASSERT_EQ(tensor.data.size, tensor.element_count() * item_bytes(tensor.dtype)) << tensor.name;
    uint64_t end = tensor.data.offset;
    if (tensor.strides.empty()) {
      end += tensor.data.size;
    } else {
      ASSERT_EQ(tensor.strides.size(), tensor.shape.size());
      for (size_t d = 0; d < tensor.shape.size(); ++d) {
        end += (tensor.shape[d] - 1) * tensor.strides[d] * item_bytes(tensor.dtype);
      }
      end += item_bytes(tensor.dtype);
    }
    ASSERT_LE(end, file_bytes) << tensor.name;
    ASSERT_LE(tensor.data.offset, end) << tensor.name;
  }
}

std::vector<std::string> golden_files() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    if (entry.path().extension() == ".bin") {
      names.push_back(entry.path().filename());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(TorchCheckpoint, ReadsWhatRealTorchWrote) {
  std::map<std::string, std::map<std::string, std::string>> expected;  // file -> tensor -> the rest of the line
  for (const char* version : {"1.13", "2.15"}) {
    std::istringstream lines(read_file(kGolden + "torch-" + version + ".txt"));
    std::string file;
    std::string tensor;
    std::string rest;
    while (lines >> file >> tensor && std::getline(lines, rest)) {
      expected[file][tensor] = rest;
    }
  }
  EXPECT_EQ(expected.size(), 13U);
  for (const auto& [name, tensors] : expected) {
    SCOPED_TRACE(name);
    const std::string file = read_file(kGolden + name);
    const auto found = read(file);
    ASSERT_THAT(found, is_ok());
    expect_sound(*found, file.size());
    std::map<std::string, std::string> got;
    for (const TensorInfo& tensor : *found) {
      got[tensor.name] = ' ' + std::string(torch_name(tensor.dtype)) + ' ' + shape_text(tensor.shape) + ' ' +
                         hex(content(file, tensor));
    }
    EXPECT_EQ(got, tensors);
    EXPECT_EQ(found->size(), tensors.size());
    EXPECT_TRUE(std::is_sorted(found->begin(), found->end(),
                               [](const auto& a, const auto& b) { return a.data.offset < b.data.offset; }));
  }
}

TEST(TorchCheckpoint, TiedWeightsShareTheirBytes) {
  for (const char* name : {"torch-2.15-zip.bin", "torch-1.13-legacy.bin"}) {
    const auto tensors = read(read_file(kGolden + name));
    ASSERT_THAT(tensors, is_ok());
    const auto of = [&](std::string_view wanted) {
      return std::find_if(tensors->begin(), tensors->end(), [&](const auto& t) { return t.name == wanted; });
    };
    EXPECT_EQ(of("tied")->data, of("tied_too")->data);
    EXPECT_EQ(of("rows")->data.offset, of("tied")->data.offset + 2 * 6 * sizeof(float));
    EXPECT_TRUE(of("rows")->strides.empty());
    EXPECT_EQ(of("columns")->strides, (std::vector<uint64_t>{6, 1}));
    EXPECT_EQ(of("expanded")->strides, (std::vector<uint64_t>{1, 0}));
  }
}

TEST(TorchCheckpoint, ReadsComplexNumbers) {
  const auto tensors = read(torch_zip(pickle_tensors({{"x", "0", "ComplexFloatStorage", 3, 1, {2}, {1}},
                                                      {"y", "1", "ComplexDoubleStorage", 1, 0, {1}, {1}}}),
                                      {{"0", std::string(24, 'x')}, {"1", std::string(16, 'y')}}));
  ASSERT_THAT(tensors, is_ok());
  EXPECT_EQ((*tensors)[0].dtype, DType::kC64);
  EXPECT_EQ((*tensors)[0].data.size, 16U);
  EXPECT_EQ((*tensors)[1].dtype, DType::kC128);
}

TEST(TorchCheckpoint, RefusesTensorsFarLargerThanTheirFile) {
  const auto checkpoint = [](const std::vector<TorchView>& views) {
    return torch_zip(pickle_tensors(views), {{"0", std::string(1000, 'x')}});
  };
  const auto expanded = [](int64_t times) {
    return TorchView{"w", "0", "ByteStorage", 1000, 0, {times, 1000}, {0, 1}};
  };
  EXPECT_THAT(read(checkpoint({expanded(50)})), is_ok());
  EXPECT_THAT(read(checkpoint({expanded(1000)})), fails_with(ErrorKind::kInvalidModel, {"'w'", "1000000", "64 times"}));
  EXPECT_THAT(read(checkpoint({{"w", "0", "ByteStorage", 1000, 0, {int64_t{1} << 31, int64_t{1} << 31}, {0, 0}}})),
              fails_with(ErrorKind::kInvalidModel, {"'w'", "64 times"}));
  std::vector<TorchView> views(60, expanded(50));
  for (size_t i = 0; i < views.size(); ++i) {
    views[i].name += std::to_string(i);
  }
  EXPECT_THAT(read(checkpoint(views)), fails_with(ErrorKind::kInvalidModel, {"together", "64 times"}));
}

TEST(TorchCheckpoint, RefusesWhatItCannotServeAndSaysWhy) {
  const std::map<std::string, std::vector<std::string>> reasons = {
      {"sparse", {"'x'", "_rebuild_sparse_tensor", "plain tensors only"}},
      {"quantized", {"'x'", "_rebuild_qtensor", "plain tensors only"}},
      {"negated", {"'x'", "'neg'", "clone()"}},
      {"module", {"whole object", "torch.nn.modules.linear.Linear", "state_dict()"}},
      {"list", {"not a dictionary", "state_dict()"}},
      {"without_tensors", {"holds no tensors"}},
      {"torchscript", {"TorchScript"}},
  };
  size_t count = 0;
  for (const std::string& name : golden_files()) {
    const size_t kind = name.find("refused_");
    if (kind == std::string::npos) {
      continue;
    }
    const std::string reason = name.substr(kind + 8, name.size() - kind - 12);
    EXPECT_THAT(read(read_file(kGolden + name)), fails_with(ErrorKind::kInvalidModel, reasons.at(reason))) << name;
    ++count;
  }
  EXPECT_EQ(count, 2 * reasons.size() - 1);
}

TEST(TorchCheckpoint, CutFilesAreRefusedAtEveryLength) {
  for (const char* name :
       {"torch-2.15-zip.bin", "torch-1.13-zip.bin", "torch-2.15-legacy.bin", "torch-1.13-legacy.bin"}) {
    const std::string file = read_file(kGolden + name);
    for (size_t size = 0; size < file.size(); ++size) {
      ASSERT_THAT(read(std::string_view(file).substr(0, size)), fails_with(ErrorKind::kInvalidModel, {}))
          << name << " cut to " << size;
    }
  }
}

TEST(TorchCheckpoint, DamagedFilesNeverReachOutsideTheFile) {
  size_t accepted = 0;
  for (const char* name : {"torch-2.15-zip.bin", "torch-1.13-legacy.bin", "torch-2.15-training_state_dict.bin"}) {
    std::string file = read_file(kGolden + name);
    for (char& byte : file) {
      const char right = byte;
      for (const int wrong : {right ^ 1, 0xFF}) {
        byte = static_cast<char>(wrong);
        if (const auto tensors = read(file)) {
          expect_sound(*tensors, file.size());
          ++accepted;
        }
      }
      byte = right;
    }
  }
  EXPECT_GT(accepted, 0U);  // data bytes may be anything
}

struct Hostile {
  const char* what;
  std::string file;
  std::vector<std::string> words;
};

TorchView view(std::string storage, int64_t items, int64_t offset, std::vector<int64_t> shape,
               std::vector<int64_t> strides) {
  return {"w", std::move(storage), "FloatStorage", items, offset, std::move(shape), std::move(strides)};
}

TEST(TorchCheckpoint, TensorsStayInsideTheirStorages) {
  const std::string eight(8 * sizeof(float), 'x');
  const auto zip = [&](const TorchView& v) { return torch_zip(pickle_tensors({v}), {{"0", eight}}); };
  EXPECT_THAT(read(zip(view("0", 8, 0, {2, 4}, {4, 1}))), is_ok());
  EXPECT_THAT(read(zip(view("0", 8, 2, {2, 3}, {3, 1}))), is_ok());
  EXPECT_THAT(read(zip(view("0", 8, 7, {9, 1000}, {0, 0}))), is_ok());  // expanded
  EXPECT_THAT(read(zip(view("0", 8, 99, {0, 4}, {4, 1}))), is_ok());    // empty: touches nothing
  constexpr int64_t kHuge = INT64_MAX;
  for (const auto& [what, file, words] : std::initializer_list<Hostile>{
           {"one too many", zip(view("0", 8, 1, {2, 4}, {4, 1})), {"'w'", "reaches beyond", "of 32 bytes"}},
           {"stride too far", zip(view("0", 8, 0, {2, 4}, {5, 1})), {"'w'", "reaches beyond"}},
           {"offset", zip(view("0", 8, kHuge, {1}, {1})), {"'w'", "reaches beyond"}},
           {"negative offset", zip(view("0", 8, -1, {1}, {1})), {"'w'", "does not begin"}},
           {"negative extent", zip(view("0", 8, 0, {-1}, {1})), {"shape of tensor 'w'", "non-negative"}},
           {"negative stride", zip(view("0", 8, 7, {8}, {-1})), {"strides of tensor 'w'", "non-negative"}},
           {"product beyond 64 bits", zip(view("0", 8, 0, {kHuge, 3}, {0, 0})), {"shape of tensor 'w'", "too large"}},
           {"reach beyond 64 bits", zip(view("0", 8, 0, {4}, {kHuge})), {"'w'", "reaches beyond"}},
           {"bytes beyond 64 bits", zip(view("0", 8, 0, {2}, {kHuge})), {"'w'", "reaches beyond"}},
           {"extents without strides", zip(view("0", 8, 0, {2, 4}, {1})), {"2 extents, but 1 strides"}},
           {"claims less", zip(view("0", 4, 0, {8}, {1})), {"reaches beyond", "of 16 bytes"}},
           {"claims more", zip(view("0", 9, 0, {8}, {1})), {"claims 9 items", "only 32 bytes"}},
           {"claims beyond 64 bits", zip(view("0", kHuge, 0, {8}, {1})), {"claims", "only 32 bytes"}},
           {"negative claim", zip(view("0", -1, 0, {8}, {1})), {"names a storage"}},
           {"no such storage", zip(view("1", 8, 0, {8}, {1})), {"storage '1'", "does not hold"}},
           {"path out", zip(view("../version", 1, 0, {1}, {1})), {"does not hold"}},
           {"rank 65",
            zip(view("0", 8, 0, std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1))),
            {"more than 64"}},
       }) {
    EXPECT_THAT(read(file), fails_with(ErrorKind::kInvalidModel, words)) << what;
  }
}

TEST(TorchCheckpoint, LegacyFilesThatLieAboutTheirStoragesAreRefused) {
  const std::string data = little_endian(8, 8) + std::string(8 * sizeof(float), 'x');
  const std::string tensor = pickle_tensors({view("0", 8, 0, {8}, {1})}, true);
  EXPECT_THAT(read(torch_legacy(tensor, {{"0", data}})), is_ok());
  const std::string in_view =
      tensor.substr(0, tensor.find("NtQ")) + pickle_ints({0}) + tensor.substr(tensor.find("NtQ") + 1);
  for (const auto& [what, file, words] : std::initializer_list<Hostile>{
           {"count too low",
            torch_legacy(tensor, {{"0", little_endian(7, 8) + data.substr(8)}}),
            {"claims 8", "has 7"}},
           {"count too high",
            torch_legacy(tensor, {{"0", little_endian(9, 8) + data.substr(8)}}),
            {"claims 8", "has 9"}},
           {"negative count", torch_legacy(tensor, {{"0", std::string(8, '\xff') + data.substr(8)}}), {"claims 8"}},
           {"file ends", torch_legacy(tensor, {{"0", data.substr(0, 20)}}), {"the file ends before"}},
           {"count cut", torch_legacy(tensor, {{"0", data.substr(0, 4)}}), {"complete"}},
           {"twice", torch_legacy(tensor, {{"0", data}, {"0", data}}), {"'0' twice"}},
           {"unknown key", torch_legacy(tensor, {{"0", data}, {"1", data}}), {"no tensor names"}},
           {"not there", torch_legacy(tensor, {}), {"storage '0'", "does not hold"}},
           {"view of a storage", torch_legacy(in_view, {{"0", data}}), {"parts of others"}},
           {"two claims",
            torch_legacy(pickle_tensors({view("0", 8, 0, {8}, {1}), {"v", "0", "FloatStorage", 4, 0, {4}, {1}}}, true),
                         {{"0", data}}),
            {"'0' is described in two ways"}},
           {"claims beyond 64 bits",
            torch_legacy(pickle_tensors({view("0", INT64_MAX, 0, {8}, {1})}, true),
                         {{"0", little_endian(INT64_MAX, 8) + data}}),
            {"claims"}},
       }) {
    EXPECT_THAT(read(file), fails_with(ErrorKind::kInvalidModel, words)) << what;
  }
  std::string big_endian = torch_legacy(tensor, {{"0", data}});
  big_endian[big_endian.find("little_endian") + 13] = '\x89';
  EXPECT_THAT(read(big_endian), fails_with(ErrorKind::kInvalidModel, {"little-endian"}));
}

TEST(TorchCheckpoint, ArchivesThatAreNoCheckpointsAreRefused) {
  const std::string good = pickle_of(pickle_tensors({view("0", 1, 0, {1}, {1})}));
  const ZipPiece data{"a/data/0", "1234"};
  EXPECT_THAT(read(zip_of({{"a/data.pkl", good}, data})), is_ok());
  for (const auto& [what, file, words] : std::initializer_list<Hostile>{
           {"empty file", "", {"no torch checkpoint"}},
           {"safetensors", "\x40\0\0\0\0\0\0\0{\"a\":"s, {"no torch checkpoint"}},
           {"git-lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", {"git lfs pull"}},
           {"empty archive", "PK\3\4" + zip_of({}), {"in no folder"}},
           {"no folder", zip_of({{"data.pkl", good}}), {"in no folder"}},
           {"no pickle", zip_of({{"a/x", good}}), {"no data.pkl"}},
           {"big-endian", zip_of({{"a/data.pkl", good}, data, {"a/byteorder", "big"}}), {"little-endian"}},
           {"TorchScript", zip_of({{"a/data.pkl", good}, data, {"a/constants.pkl", good}}), {"TorchScript"}},
           {"empty pickle", zip_of({{"a/data.pkl", ""}}), {"in the middle"}},
       }) {
    EXPECT_THAT(read(file), fails_with(ErrorKind::kInvalidModel, words)) << what;
  }
}

TEST(TorchCheckpoint, TheDictionaryMayBeWrappedOnce) {
  const auto tensor = [](const std::string& name) {
    return pickle_tensors({{name, "0", "ByteStorage", 1, 0, {1}, {1}}});
  };
  const auto name_in = [&](const std::string& value) {
    const auto tensors = read(torch_zip(value, {{"0", "x"}}));
    return tensors && tensors->size() == 1 ? tensors->front().name : std::string("?");
  };
  const std::string loose = pickle_tensor({"", "0", "ByteStorage", 1, 0, {1}, {1}});
  EXPECT_EQ(name_in(tensor("a")), "a");
  EXPECT_EQ(name_in(pickle_dict({{pickle_text("model"), tensor("a")}, {pickle_text("best"), loose}})), "a");
  EXPECT_EQ(name_in(pickle_dict({{pickle_text("model"), tensor("b")}, {pickle_text("state_dict"), tensor("a")}})), "a");
  // A wrapper's key that holds no tensors is an entry like any other, and so is another key with a dictionary.
  EXPECT_EQ(name_in(pickle_dict({{pickle_text("state_dict"), "}"}, {pickle_text("model"), tensor("a")}})), "a");
  EXPECT_EQ(name_in(pickle_dict({{pickle_text("model"), loose}, {pickle_text("ema"), tensor("a")}})), "model");
  EXPECT_EQ(name_in(pickle_dict({{pickle_text("state_dict"), pickle_dict({{pickle_text("model"), tensor("a")}})}})),
            "?");
}

TEST(TorchCheckpoint, NamesAreUniqueAndText) {
  const auto named = [](const std::vector<std::string>& names) {
    std::vector<TorchView> views;
    for (const std::string& name : names) {
      views.push_back({name, "0", "ByteStorage", 1, 0, {1}, {1}});
    }
    return torch_zip(pickle_tensors(views), {{"0", "x"}});
  };
  EXPECT_THAT(read(named({"a", "b", "\xC3\xA4", ""})), is_ok());
  const auto repeated = read(named({"a", "b", "a"}));
  ASSERT_THAT(repeated, is_ok());
  EXPECT_EQ(repeated->size(), 2U) << "twice the same";
  EXPECT_THAT(read(torch_zip(pickle_tensors({{"a", "0", "ByteStorage", 2, 0, {1}, {1}},
                                             {"a", "0", "ByteStorage", 2, 1, {1}, {1}}}),
                             {{"0", "xy"}})),
              fails_with(ErrorKind::kInvalidModel, {"'a'", "twice"}));
  EXPECT_THAT(read(named({"\xED\xA0\x80"})), fails_with(ErrorKind::kInvalidModel, {"not UTF-8"}));
  EXPECT_THAT(read(named({std::string((64 << 10) + 1, 'a')})), fails_with(ErrorKind::kInvalidModel, {"64 KiB"}));
}

TEST(TorchCheckpoint, TellsItsFormatsFromOthers) {
  for (const std::string& name : golden_files()) {
    EXPECT_TRUE(has_torch_magic(read_file(kGolden + name).substr(0, kTorchMagicBytes))) << name;
  }
  for (const std::string& other : {""s, "PK\5\6"s, "\x80\x02}q"s, "GGUF"s, "\x80"s, std::string(32, '\0')}) {
    EXPECT_FALSE(has_torch_magic(other));
  }
}

}  // namespace
}  // namespace qcache
