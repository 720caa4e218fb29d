#include "core/quant/scheme.h"

#include <set>
#include <string>

#include "core/quant/tensor_selection.h"
#include "gmock/gmock.h"
#include "tests/quant/encode_tensor.h"

namespace qcache {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

/// "name dtype [shape] bytes_per_unit" of each stored tensor, constants with "constant" for the latter.
std::vector<std::string> described(const Encoding& encoding) {
  std::vector<std::string> out;
  for (const StoredTensor& tensor : encoding.stored) {
    std::string text = tensor.name + " " + std::string(safetensors_name(tensor.dtype)) + " [";
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      text += (i == 0 ? "" : ",") + std::to_string(tensor.shape[i]);
    }
    out.push_back(text + "] " +
                  (tensor.constant.empty() ? std::to_string(tensor.bytes_per_unit) : std::string("constant")));
  }
  return out;
}

Encoding encoding_of(std::string_view scheme, const TensorInfo& tensor, const SourceModel& model = {}) {
  return encoding_alone(*find_scheme(scheme), tensor, model);
}

TEST(Scheme, EveryNameAndAliasFindsItsScheme) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> names = {
      {"bf16", {"bfloat16"}},
      {"fp16", {"float16", "half"}},
      {"fp32", {"float32", "float"}},
      {"int8", {"w8a8", "int8-dynamic"}},
      {"fp8", {"fp8-dynamic", "float8_e4m3fn", "fp8_e4m3", "float8"}},
      {"int4", {"w4a16", "int4-g128"}},
      {"nf4", {"bnb-4bit", "bnb-nf4"}},
      {"qfloat8", {"qfloat8_e4m3fn", "quanto-float8"}},
      {"qint8", {"quanto-int8"}},
      {"qint4", {"quanto-int4"}},
      {"fp8-block", {"fp8_128x128", "deepseek-fp8"}},
      {"int8-bnb", {"bnb-8bit", "llm-int8"}},
      {"nf4-dq", {"nf4-double"}},
      {"fp4", {"bnb-fp4"}},
      {"w8a16", {"int8-weightonly"}},
      {"nvfp4", {"nvfp4a16"}},
      {"mxfp4", {"mxfp4a16"}},
  };
  ASSERT_THAT(all_schemes(), SizeIs(names.size()));
  for (size_t i = 0; i < names.size(); ++i) {
    const Scheme* scheme = all_schemes()[i];
    EXPECT_EQ(scheme->name(), names[i].first);
    EXPECT_EQ(find_scheme(names[i].first), scheme);
    EXPECT_GE(scheme->version(), 1U);
    for (const std::string& alias : names[i].second) {
      EXPECT_EQ(find_scheme(alias), scheme) << alias;
    }
    EXPECT_THAT(scheme->aliases(), SizeIs(names[i].second.size()));
  }
}

TEST(Scheme, NamesIgnoreCaseAndTakeDashForUnderscore) {
  EXPECT_EQ(find_scheme("NF4"), find_scheme("nf4"));
  EXPECT_EQ(find_scheme("Int8_Dynamic"), find_scheme("int8"));
  EXPECT_EQ(find_scheme("FLOAT8-E4M3FN"), find_scheme("fp8"));
}

TEST(Scheme, UnknownNamesFindNothing) {
  for (const char* name : {"", "int", "int88", "nf 4", "q4_0", "bf16/"}) {
    EXPECT_EQ(find_scheme(name), nullptr) << name;
  }
}

TEST(Scheme, NoNameIsTakenTwice) {
  std::set<std::string> seen;
  for (const Scheme* scheme : all_schemes()) {
    EXPECT_TRUE(seen.insert(std::string(scheme->name())).second) << scheme->name();
    for (const std::string_view alias : scheme->aliases()) {
      EXPECT_TRUE(seen.insert(std::string(alias)).second) << alias;
    }
  }
}

TEST(Scheme, AllRefuseModelsThatAreAlreadyQuantized) {
  SourceModel model;
  model.facts.quant_method = "awq";
  for (const Scheme* scheme : all_schemes()) {
    EXPECT_THAT(scheme->refusal(model).value_or(""),
                HasSubstr("already quantized (awq): qcache serves unquantized models only"))
        << scheme->name();
    EXPECT_EQ(scheme->refusal(SourceModel{}), std::nullopt) << scheme->name();
  }
}

TEST(Scheme, WhatLoadersCannotLoadIsRefusedForMixturesOfExperts) {
  SourceModel model;
  model.facts.mixture_of_experts = true;
  const std::set<std::string_view> refusing = {"int8", "qfloat8", "qint8", "qint4", "nvfp4"};
  for (const Scheme* scheme : all_schemes()) {
    const bool refuses = refusing.contains(scheme->name());
    EXPECT_EQ(scheme->refusal(model).has_value(), refuses) << scheme->name();
    if (refuses) {
      EXPECT_THAT(*scheme->refusal(model), HasSubstr("use fp8"));
    }
  }
}

TEST(Scheme, JoinedExpertsOfLlama4AreRefusedWhereTransformersWouldSplitThem) {
  SourceModel model;
  model.facts.model_type = "llama4_text";
  model.facts.mixture_of_experts = true;
  model.tensors = {tensor_of("a.experts.gate_up_proj", DType::kBF16, {4, 64, 128})};
  const std::set<std::string_view> serving = {"bf16", "fp16", "fp32", "fp8-block"};
  for (const Scheme* scheme : all_schemes()) {
    EXPECT_EQ(scheme->refusal(model).has_value(), !serving.contains(scheme->name())) << scheme->name();
  }
  for (const char* scheme : {"fp8", "int4", "w8a16", "mxfp4", "nf4", "nf4-dq", "fp4", "int8-bnb", "int8", "nvfp4"}) {
    EXPECT_THAT(find_scheme(scheme)->refusal(model).value_or(""), HasSubstr("use fp8-block")) << scheme;
  }
  model.facts.model_type = "gpt_oss";
  EXPECT_EQ(find_scheme("fp8")->refusal(model), std::nullopt) << "others keep such experts dense";
}

TEST(Scheme, GroupWiseOnesRefuseExpertsThatWouldBeQuantizedInPart) {
  SourceModel model;
  model.facts.mixture_of_experts = true;
  model.tensors = {tensor_of("a.mlp.experts.0.w1.weight", DType::kBF16, {48, 64})};
  for (const char* scheme : {"int4", "w8a16", "mxfp4"}) {
    EXPECT_EQ(find_scheme(scheme)->refusal(model), std::nullopt);
  }
  model.tensors.push_back(tensor_of("a.mlp.experts.0.w2.weight", DType::kBF16, {64, 48}));
  for (const char* scheme : {"int4", "w8a16", "mxfp4"}) {
    EXPECT_THAT(find_scheme(scheme)->refusal(model).value_or(""),
                HasSubstr("'a.mlp.experts.0.w2.weight' are no multiples of 32"));
  }
}

TEST(Scheme, GroupsAreTheLargestThatDivideEveryRow) {
  struct Case {
    std::vector<uint64_t> columns;
    uint64_t group;
  };
  for (const Case& c : {Case{{}, 128}, Case{{256, 128}, 128}, Case{{256, 192}, 64}, Case{{192, 96}, 32},
                        Case{{256, 100}, 128}, Case{{100, 33}, 128}}) {
    SourceModel model;
    for (const uint64_t columns : c.columns) {
      model.tensors.push_back(tensor_of("l." + std::to_string(columns) + ".weight", DType::kBF16, {16, columns}));
    }
    model.tensors.push_back(tensor_of("a.norm.weight", DType::kBF16, {16, 32}));
    for (const char* name : {"int4", "w8a16"}) {
      const Scheme& scheme = *find_scheme(name);
      EXPECT_EQ(scheme.choose(model).group_elements, c.group);
      for (const TensorInfo& tensor : model.tensors) {
        EXPECT_EQ(scheme.encoding(model, scheme.choose(model), tensor).quantized,
                  tensor.name != "a.norm.weight" && tensor.shape[1] % 32 == 0)
            << tensor.name;
      }
    }
  }
}

TEST(Scheme, Int8StoresCodesAndOneScalePerRowInTheWeightsDtype) {
  EXPECT_THAT(described(encoding_of("int8", tensor_of("a.q_proj.weight", DType::kBF16, {32, 48}))),
              ElementsAre("a.q_proj.weight I8 [32,48] 48", "a.q_proj.weight_scale BF16 [32,1] 2"));
  EXPECT_THAT(described(encoding_of("int8", tensor_of("a.q_proj.weight", DType::kF64, {32, 48}))),
              ElementsAre("a.q_proj.weight I8 [32,48] 48", "a.q_proj.weight_scale F32 [32,1] 4"));
}

TEST(Scheme, Fp8StoresCodesAndOneScalePerRowInTheWeightsDtype) {
  EXPECT_THAT(described(encoding_of("fp8", tensor_of("a.q_proj.weight", DType::kF16, {32, 48}))),
              ElementsAre("a.q_proj.weight F8_E4M3 [32,48] 48", "a.q_proj.weight_scale F16 [32,1] 2"));
}

TEST(Scheme, Qfloat8StoresWhatQuantosModulesExpect) {
  const Encoding encoding = encoding_of("qfloat8", tensor_of("a.q_proj.weight", DType::kBF16, {32, 48}));
  EXPECT_THAT(described(encoding),
              ElementsAre("a.q_proj.weight._data F8_E4M3 [32,48] 48", "a.q_proj.weight._scale BF16 [32,1] 2",
                          "a.q_proj.input_scale BF16 [] constant", "a.q_proj.output_scale BF16 [] constant"));
  EXPECT_EQ(encoding.stored[2].constant, std::string("\x80\x3f", 2));
  EXPECT_EQ(encoding.stored[3].constant, std::string("\x80\x3f", 2));
}

TEST(Scheme, Nf4StoresWhatBitsandbytesExpects) {
  const Encoding encoding = encoding_of("nf4", tensor_of("a.q_proj.weight", DType::kBF16, {32, 128}));
  EXPECT_THAT(described(encoding), ElementsAre("a.q_proj.weight U8 [2048,1] 64", "a.q_proj.weight.absmax F32 [64] 8",
                                               "a.q_proj.weight.quant_map F32 [16] constant",
                                               "a.q_proj.weight.quant_state.bitsandbytes__nf4 U8 [79] constant"));
  EXPECT_EQ(encoding.stored[3].constant,
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [32, 128]})");
  std::string map_hex;
  for (const char c : encoding.stored[2].constant) {
    static constexpr std::string_view kDigits = "0123456789abcdef";
    map_hex += kDigits[static_cast<unsigned char>(c) >> 4];
    map_hex += kDigits[static_cast<unsigned char>(c) & 15];
  }
  EXPECT_EQ(map_hex,
            "000080bfb13932bf306b06bfa032cabe4da291be3f353dbe7178babd00000000"
            "fffaa23de3ca243edd047c3e3a03ad3eb8a4e13eab07103fb313393f0000803f");
}

TEST(Scheme, OthersStoreWhatTheirLoadersExpect) {
  const TensorInfo tensor = tensor_of("a.q_proj.weight", DType::kF16, {128, 256});
  EXPECT_THAT(described(encoding_of("int4", tensor)),
              ElementsAre("a.q_proj.weight_packed I32 [128,32] 128", "a.q_proj.weight_scale F16 [128,2] 4",
                          "a.q_proj.weight_shape I64 [2] constant"));
  EXPECT_EQ(encoding_of("int4", tensor).stored[2].constant, std::string("\x80\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0", 16));
  EXPECT_THAT(described(encoding_of("w8a16", tensor)),
              ElementsAre("a.q_proj.weight_packed I32 [128,64] 256", "a.q_proj.weight_scale F16 [128,2] 4",
                          "a.q_proj.weight_shape I64 [2] constant"));
  EXPECT_THAT(described(encoding_of("qint8", tensor)),
              ElementsAre("a.q_proj.weight._data I8 [128,256] 256", "a.q_proj.weight._scale F16 [128,1] 2",
                          "a.q_proj.input_scale F16 [] constant", "a.q_proj.output_scale F16 [] constant"));
  EXPECT_THAT(described(encoding_of("qint4", tensor)),
              ElementsAre("a.q_proj.weight._data._data U8 [128,128] 128", "a.q_proj.weight._scale F16 [256,1] 2",
                          "a.q_proj.weight._shift F16 [256,1] 2", "a.q_proj.input_scale F16 [] constant",
                          "a.q_proj.output_scale F16 [] constant"));
  EXPECT_THAT(described(encoding_of("fp8-block", tensor)),
              ElementsAre("a.q_proj.weight F8_E4M3 [128,256] 32768", "a.q_proj.weight_scale_inv F32 [1,2] 8"));
  EXPECT_THAT(described(encoding_of("int8-bnb", tensor)),
              ElementsAre("a.q_proj.weight I8 [128,256] 256", "a.q_proj.SCB F32 [128] 4",
                          "a.q_proj.weight_format U8 [] constant"));
  EXPECT_THAT(described(encoding_of("fp4", tensor)),
              ElementsAre("a.q_proj.weight U8 [16384,1] 128", "a.q_proj.weight.absmax F32 [512] 16",
                          "a.q_proj.weight.quant_map F32 [16] constant",
                          "a.q_proj.weight.quant_state.bitsandbytes__fp4 U8 [79] constant"));
  EXPECT_THAT(described(encoding_of("nf4-dq", tensor)),
              ElementsAre("a.q_proj.weight U8 [16384,1] 8192", "a.q_proj.weight.absmax U8 [512] 256",
                          "a.q_proj.weight.nested_absmax F32 [2] 4", "a.q_proj.weight.quant_map F32 [16] constant",
                          "a.q_proj.weight.nested_quant_map F32 [256] constant",
                          "a.q_proj.weight.quant_state.bitsandbytes__nf4 U8 [174] 0"));
  EXPECT_THAT(described(encoding_of("nvfp4", tensor)),
              ElementsAre("a.q_proj.weight_packed U8 [128,128] 128", "a.q_proj.weight_scale F8_E4M3 [128,16] 16",
                          "a.q_proj.weight_global_scale F32 [1] 0"));
  EXPECT_THAT(described(encoding_of("mxfp4", tensor)),
              ElementsAre("a.q_proj.weight_packed U8 [128,128] 128", "a.q_proj.weight_scale U8 [128,8] 8"));
}

TEST(Scheme, WhatALoaderDecompressesToBf16IsBf16Altogether) {
  for (const char* name : {"nvfp4", "mxfp4"}) {
    EXPECT_EQ(find_scheme(name)->dense_dtype({}), DType::kBF16);
    EXPECT_THAT(described(encoding_of(name, tensor_of("a.norm.weight", DType::kF32, {3}))),
                ElementsAre("a.norm.weight BF16 [3] 32768"));
  }
}

TEST(Scheme, Qint4ChoosesQuantosGroups) {
  for (const auto& [columns, group] : std::vector<std::pair<uint64_t, uint64_t>>{
           {64, 64}, {128, 128}, {256, 128}, {160, 32}, {192, 96}, {320, 64}, {130, 130}}) {
    EXPECT_EQ(encoding_of("qint4", tensor_of("a.q_proj.weight", DType::kBF16, {16, columns})).group_elements, group)
        << columns;
  }
}

TEST(Scheme, Fp8BlockLeavesDensePartialSquares) {
  for (const Shape& shape : {Shape{128, 130}, Shape{192, 128}, Shape{128, 128 * 1025}}) {
    EXPECT_FALSE(encoding_of("fp8-block", tensor_of("a.q_proj.weight", DType::kBF16, shape)).quantized);
  }
}

TEST(Scheme, Nf4LeavesDenseWhatBitsandbytesCannotLoad) {
  struct Case {
    const char* name;
    Shape shape;
    bool quantized;
  };
  for (const Case& c : {Case{"a.q_proj.weight", {32, 64}, true}, Case{"a.q_proj.weight", {48, 64}, false},
                        Case{"a.q_proj.weight", {32, 96}, false}, Case{"a.mlp.experts.0.w1.weight", {32, 64}, false}}) {
    EXPECT_EQ(encoding_of("nf4", tensor_of(c.name, DType::kBF16, c.shape)).quantized, c.quantized)
        << c.name << " " << c.shape[0] << "x" << c.shape[1];
  }
}

TEST(Scheme, Fp8QuantizesExperts) {
  SourceModel model;
  model.facts.mixture_of_experts = true;
  EXPECT_TRUE(encoding_of("fp8", tensor_of("a.mlp.experts.0.w1.weight", DType::kBF16, {32, 64}), model).quantized);
}

TEST(Scheme, CastsChangeWideFloatsOnly) {
  EXPECT_THAT(described(encoding_of("bf16", tensor_of("a.weight", DType::kF32, {3, 5}))),
              ElementsAre("a.weight BF16 [3,5] 32768"));
  EXPECT_THAT(described(encoding_of("fp32", tensor_of("a.weight", DType::kBF16, {3, 5}))),
              ElementsAre("a.weight F32 [3,5] 65536"));
  for (const DType dtype : {DType::kI64, DType::kU8, DType::kBool, DType::kF8E4M3, DType::kF8E5M2}) {
    EXPECT_EQ(encoding_of("fp16", tensor_of("a.weight", dtype, {32, 64})).stored[0].dtype, dtype);
  }
}

TEST(Scheme, CopiesKeepEveryBit) {
  // Signalling NaN included: a copy does not look at values.
  const TensorInfo tensor = tensor_of("a.norm.weight", DType::kBF16, {4});
  const std::vector<std::byte> source = {std::byte{0x01}, std::byte{0x7f}, std::byte{0x81}, std::byte{0xff},
                                         std::byte{0xff}, std::byte{0x7f}, std::byte{0x00}, std::byte{0x80}};
  for (const char* scheme : {"bf16", "int8", "fp8", "nf4", "qfloat8"}) {
    const Encoding encoding = encoding_of(scheme, tensor);
    EXPECT_FALSE(encoding.quantized);
    EXPECT_EQ(encode_tensor(encoding, source).at(0), source) << scheme;
  }
}

TEST(Scheme, BytesDoNotDependOnHowUnitsAreGrouped) {
  for (const Shape& shape : {Shape{128, 640}, Shape{17, 384}, Shape{256, 2176}}) {
    const TensorInfo tensor = tensor_of("a.q_proj.weight", DType::kF32, shape);
    std::vector<std::byte> source(tensor.data.size);
    for (size_t i = 0; i < source.size(); ++i) {
      source[i] = static_cast<std::byte>(i * i * 31 >> 3);
    }
    for (const Scheme* scheme : all_schemes()) {
      const Encoding encoding = encoding_alone(*scheme, tensor);
      const auto whole = encode_tensor(encoding, source, encoding.unit_count());
      EXPECT_TRUE(encode_tensor(encoding, source, 1) == whole) << scheme->name();
      EXPECT_TRUE(encode_tensor(encoding, source, 5) == whole) << scheme->name();
    }
  }
}

}  // namespace
}  // namespace qcache
