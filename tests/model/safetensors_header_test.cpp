#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "core/base/checked.h"
#include "core/model/safetensors.h"
#include "tests/support/fake_env.h"
#include "tests/support/model_builder.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

/// Parses the header as that of a file with this many bytes of data.
Result<std::vector<TensorInfo>> parse(std::string_view json, uint64_t data_bytes) {
  return parse_safetensors_header(json, 8 + json.size() + data_bytes);
}

Result<SafetensorsHeader> read(Env& env, const std::string& path) {
  QCACHE_TRY_ASSIGN(const UniqueFd fd, env.open(path, O_RDONLY, 0));
  return read_safetensors_header(env, fd.get(), path);
}

TEST(SafetensorsHeader, GivesAbsoluteRangesByOffset) {
  const std::string json = R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},)"
                           R"("a":{"shape":[2],"data_offsets":[0,4],"dtype":"BF16","note":[{"dtype":"F4"}]}}  )";
  const auto tensors = parse(json, 28);
  ASSERT_THAT(tensors, is_ok());
  ASSERT_EQ(tensors->size(), 2U);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].dtype, DType::kBF16);
  EXPECT_EQ((*tensors)[0].shape, Shape({2}));
  EXPECT_EQ((*tensors)[0].data, (ByteRange{8 + json.size(), 4}));
  EXPECT_EQ((*tensors)[1].name, "b");
  EXPECT_EQ((*tensors)[1].shape, Shape({2, 3}));
  EXPECT_EQ((*tensors)[1].data, (ByteRange{8 + json.size() + 4, 24}));
}

TEST(SafetensorsHeader, AcceptsScalarsAndEmptyTensors) {
  const auto tensors = parse(R"({"e1":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
                             R"("s":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                             R"("e2":{"dtype":"U8","shape":[3,0],"data_offsets":[8,8]}})",
                             8);
  ASSERT_THAT(tensors, is_ok());
  ASSERT_EQ(tensors->size(), 3U);
  EXPECT_EQ((*tensors)[0].name, "e1");
  EXPECT_EQ((*tensors)[1].shape, Shape());
  EXPECT_EQ((*tensors)[1].element_count(), 1U);
  EXPECT_EQ((*tensors)[2].data.size, 0U);
  EXPECT_EQ(parse("{}", 0).value().size(), 0U);
}

TEST(SafetensorsHeader, CountsItemsOfPackedTypes) {
  const auto tensors = parse(R"({"f4":{"dtype":"F4","shape":[3,4],"data_offsets":[0,6]},)"
                             R"("f6":{"dtype":"F6_E3M2","shape":[2,8],"data_offsets":[6,18]},)"
                             R"("c":{"dtype":"C64","shape":[2],"data_offsets":[18,34]}})",
                             34);
  ASSERT_THAT(tensors, is_ok());
  EXPECT_EQ((*tensors)[0].dtype, DType::kF4);
  EXPECT_EQ((*tensors)[0].shape, Shape({3, 2}));
  EXPECT_EQ((*tensors)[1].shape, Shape({2, 2}));
  EXPECT_EQ((*tensors)[2].shape, Shape({2}));
}

TEST(SafetensorsHeader, AcceptsWhatSaysNothingNew) {
  const auto tensors = parse(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"__metadata__":null,)"
                             R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("b":{"data_offsets":[1,2],"shape":[1],"dtype":"U8"},)"
                             R"("\u0062":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                             2);
  ASSERT_THAT(tensors, is_ok());
  ASSERT_EQ(tensors->size(), 2U);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[1].name, "b");
}

TEST(SafetensorsHeader, RejectsLyingHeaders) {
  struct Case {
    const char* json;
    uint64_t data_bytes;
    std::vector<std::string> words;
  };
  for (
      const auto& [json, data_bytes, words] : std::initializer_list<Case>{
          // not an object of entries
          {"[]", 0, {"not a JSON object"}},
          {"1", 0, {"not a JSON object"}},
          {"", 0, {"not JSON"}},
          {R"({"a":1})", 0, {"tensor 'a'", "not an object"}},
          {R"({"a":[]})", 0, {"tensor 'a'", "not an object"}},
          {R"({"__metadata__":[]})", 0, {"__metadata__"}},
          {R"({"__metadata__":{"a":1}})", 0, {"__metadata__", "not a string"}},
          {R"({"__metadata__":{"a":{}}})", 0, {"__metadata__", "not a string"}},
          // duplicates
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})",
           1,
           {"'a'", "twice"}},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]}})",
           1,
           {"'a'", "twice"}},
          {R"({"__metadata__":null,"__metadata__":null})", 0, {"'__metadata__'", "twice"}},
          {R"({"a":null})", 0, {"tensor 'a'", "not an object"}},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
           2,
           {"'a'", "twice"}},
          {R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1, {"'dtype'", "twice"}},
          {R"({"a":{"dtype":"U8","shape":[],"shape":[1],"data_offsets":[0,1]}})", 1, {"'shape'", "twice"}},
          {R"({"__metadata__":{},"__metadata__":{}})", 0, {"'__metadata__'", "twice"}},
          // missing or mistyped fields
          {R"({"a":{}})", 0, {"tensor 'a'", "lacks"}},
          {R"({"a":{"dtype":"U8","shape":[1]}})", 1, {"tensor 'a'", "lacks"}},
          {R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, {"tensor 'a'", "lacks"}},
          {R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1, {"tensor 'a'", "lacks"}},
          {R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,1]}})", 1, {"dtype of tensor 'a'", "not a string"}},
          {R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1, {"shape of tensor 'a'", "non-negative"}},
          {R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1, {"shape of tensor 'a'"}},
          {R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, {"shape of tensor 'a'"}},
          {R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1, {"shape of tensor 'a'"}},
          {R"({"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}})", 1, {"shape of tensor 'a'"}},
          {R"({"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}})", 1, {"shape of tensor 'a'"}},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, {"tensor 'a'", "two data_offsets"}},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}})",
           1,
           {"data_offsets of tensor 'a'", "more than 2"}},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":{"0":0}}})", 1, {"data_offsets of tensor 'a'"}},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1e0]}})", 1, {"data_offsets of tensor 'a'"}},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[null,1]}})", 1, {"data_offsets of tensor 'a'"}},
          // dtypes
          {R"({"a":{"dtype":"F5","shape":[2],"data_offsets":[0,1]}})",
           1,
           {"tensor 'a' has the dtype 'F5'", "does not know"}},
          {R"({"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}})", 3, {"tensor 'a' has the dtype F4", "2"}},
          {R"({"a":{"dtype":"F4","shape":[],"data_offsets":[0,1]}})", 1, {"tensor 'a' has the dtype F4"}},
          {R"({"a":{"dtype":"F6_E2M3","shape":[6],"data_offsets":[0,4]}})", 4, {"dtype F6_E2M3, of which 4"}},
          // sizes
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1, {"tensor 'a'", "before it starts"}},
          {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,7]}})", 7, {"tensor 'a' needs 8 bytes", "give it 7"}},
          {R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,0]}})", 0, {"tensor 'a' needs 4 bytes"}},
          {R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})",
           0,
           {"tensor 'a'", "too large"}},
          {R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
           0,
           {"tensor 'a'", "too large"}},
          {R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}})",
           1,
           {"tensor 'a' ends at byte 18446744073709551615", "only 1"}},
          // coverage
          {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
           7,
           {"tensor 'b' overlaps"}},
          {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
           4,
           {"overlaps"}},
          {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
           4,
           {"tensor 'b' overlaps"}},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, {"hole of 1 bytes before tensor 'a'"}},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})",
           4,
           {"hole of 2 bytes before tensor 'b'"}},
          {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 3, {"tensor 'a' ends at byte 4", "only 3"}},
          {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 9, {"5 bytes follow the last tensor"}},
          {"{}", 1, {"1 bytes follow"}},
          // names
          {"{\"a\xFF\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, {"not UTF-8"}},
      }) {
    EXPECT_THAT(parse(json, data_bytes), fails_with(ErrorKind::kInvalidModel, words)) << json;
  }
}

TEST(SafetensorsHeader, RejectsExtremes) {
  std::string shape = "1";
  for (int i = 0; i < 64; ++i) {
    shape += ",1";
  }
  EXPECT_THAT(parse(R"({"a":{"dtype":"U8","shape":[)" + shape + R"(],"data_offsets":[0,1]}})", 1),
              fails_with(ErrorKind::kInvalidModel, {"shape of tensor 'a'", "more than 64"}));
  shape.resize(shape.size() - 2);
  EXPECT_THAT(parse(R"({"a":{"dtype":"U8","shape":[)" + shape + R"(],"data_offsets":[0,1]}})", 1), is_ok());

  const std::string deep = R"({"a":{"x":)" + std::string(1000, '[');
  EXPECT_THAT(parse(deep, 0), fails_with(ErrorKind::kInvalidModel, {"nested deeper than 16"}));
  const std::string name(65537, 'n');
  EXPECT_THAT(parse(R"({")" + name + R"(":{}})", 0), fails_with(ErrorKind::kInvalidModel, {"longer than 64 KiB"}));
  EXPECT_THAT(parse_safetensors_header("{}", 9), fails_with(ErrorKind::kInvalidModel, {"the whole file only 9"}));
  EXPECT_THAT(parse_safetensors_header("{}", 0), fails_with(ErrorKind::kInvalidModel, {"the whole file only 0"}));
  const std::string huge(100'000'001, ' ');
  EXPECT_THAT(parse(huge, 0), fails_with(ErrorKind::kInvalidModel, {"100 MB"}));
}

TEST(SafetensorsHeader, EveryTruncationOfAGoodHeaderIsRejected) {
  const std::string json = R"({"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}})";
  ASSERT_THAT(parse(json, 8), is_ok());
  for (size_t size = 0; size < json.size(); ++size) {
    EXPECT_THAT(parse_safetensors_header(json.substr(0, size), 8 + json.size() + 8), testing::Not(is_ok())) << size;
  }
}

TEST(SafetensorsHeader, RandomModelsSurviveARoundTrip) {
  std::mt19937 random(20);
  const auto pick = [&](uint64_t below) { return random() % below; };
  for (int round = 0; round < 30; ++round) {
    const TempDir dir;
    ModelBuilder model;
    std::vector<TensorInfo> expected;
    uint64_t end = 0;
    const uint64_t count = pick(12);
    for (uint64_t i = 0; i < count; ++i) {
      TensorInfo info;
      info.name = "layers." + std::to_string(i) + ".\"\\/\n\xC3\xA9" + std::string(pick(40), 'x');
      info.dtype = static_cast<DType>(pick(15));
      for (uint64_t rank = pick(5); rank > 0; --rank) {
        info.shape.push_back(pick(6));
      }
      info.data = {end, info.element_count() * item_bytes(info.dtype)};
      end = info.data.end();
      model.tensor(info.name, info.dtype, info.shape);
      expected.push_back(info);
    }
    model.write(dir.path());
    const auto header = read(Env::posix(), dir / "model.safetensors");
    ASSERT_THAT(header, is_ok());
    const std::string file = read_file(dir / "model.safetensors");
    const uint64_t data_offset = file.size() - end;
    EXPECT_EQ(header->digest, sha256(std::as_bytes(std::span(file)).first(data_offset)));
    ASSERT_EQ(header->tensors.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(header->tensors[i].name, expected[i].name);
      EXPECT_EQ(header->tensors[i].dtype, expected[i].dtype);
      EXPECT_EQ(header->tensors[i].shape, expected[i].shape);
      EXPECT_EQ(header->tensors[i].data, (ByteRange{expected[i].data.offset + data_offset, expected[i].data.size}));
      EXPECT_EQ(file.substr(header->tensors[i].data.offset, header->tensors[i].data.size),
                as_text(model.content(expected[i].name)));
    }
  }
}

TEST(SafetensorsHeader, RejectsFilesThatAreNone) {
  const TempDir dir;
  const auto size_prefix = [](uint64_t size) {
    std::string out;
    for (int i = 0; i < 8; ++i) {
      out += static_cast<char>(size >> (8 * i));
    }
    return out;
  };
  struct Case {
    const char* name;
    std::string content;
    std::vector<std::string> words;
  };
  for (const auto& [name, content, words] : std::initializer_list<Case>{
           {"empty", "", {"/empty", "0 bytes", "complete"}},
           {"short", "1234567", {"/short", "7 bytes"}},
           {"size-one-beyond", size_prefix(3) + "{}", {"/size-one-beyond", "header of 3 bytes"}},
           {"size-100mb", size_prefix(100'000'001) + "{}", {"100000001", "100 MB"}},
           {"size-huge", size_prefix(UINT64_MAX) + "{}", {"18446744073709551615"}},
           {"lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", {"/lfs", "git-lfs pointer"}},
           {"bad-json", safetensors_file("{]"), {"/bad-json: ", "not JSON"}},
           {"cut",
            safetensors_file(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "123"),
            {"/cut: tensor 'a'", "only 3", "complete"}},
       }) {
    write_file(dir / name, content);
    EXPECT_THAT(read(Env::posix(), dir / name), fails_with(ErrorKind::kInvalidModel, words)) << name;
  }
}

TEST(SafetensorsHeader, AFileThatShrinksWhileReadIsChangedNotInvalid) {
  const TempDir dir;
  const std::string path = dir / "f";
  const std::string content = safetensors_file(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "1234");
  for (const uint64_t read_call : {1U, 2U}) {
    write_file(path, content);
    FakeEnv env;
    env.before(EnvCall::kReadAt, read_call, [&] { write_file(path, "1234"); });
    EXPECT_THAT(read(env, path), fails_with(ErrorKind::kSourceChanged, {path, "shorter"})) << read_call;
  }
}

TEST(SafetensorsHeader, ReadFailuresArePassedOn) {
  const TempDir dir;
  write_file(dir / "f", safetensors_file("{}"));
  for (const uint64_t read_call : {1U, 2U}) {
    FakeEnv env;
    env.fail(EnvCall::kReadAt, read_call, EIO);
    EXPECT_THAT(read(env, dir / "f"), fails_with(ErrorKind::kIo, {"/f"}));
  }
  FakeEnv env;
  env.fail(EnvCall::kStat, 1, EIO);
  EXPECT_THAT(read(env, dir / "f"), fails_with(ErrorKind::kIo, {"/f"}));
}

}  // namespace
}  // namespace qcache
