#include <nlohmann/json.hpp>

#include "tests/fs/mount_test.h"
#include "tests/support/torch_file.h"

namespace qcache {
namespace {

using MountFormats = MountTest;
using Names = std::vector<std::string>;

/// What a safetensors file says of one tensor, and its bytes.
struct Stored {
  std::string dtype;
  std::vector<uint64_t> shape;
  std::string bytes;
  friend bool operator==(const Stored&, const Stored&) = default;
};

Stored find_stored(const std::string& file, const std::string& name) {
  uint64_t header_bytes = 0;
  for (size_t i = 8; i-- > 0;) {
    header_bytes = header_bytes << 8 | static_cast<unsigned char>(file.at(i));
  }
  const auto entry = nlohmann::json::parse(file.substr(8, header_bytes)).at(name);
  const uint64_t begin = entry.at("data_offsets").at(0);
  const uint64_t end = entry.at("data_offsets").at(1);
  return {entry.at("dtype"), entry.at("shape"), file.substr(8 + header_bytes + begin, end - begin)};
}

ModelBuilder linear_model() {
  ModelBuilder model;
  model.config(R"({"model_type":"llama","torch_dtype":"bfloat16"})");
  model.tensor("model.layers.0.mlp.up_proj.weight", DType::kBF16, {64, 64});
  return model;
}

// S73: Tensors of all types of safetensors and torch are carried: what is not quantized is stored as it is, bit for
// bit. A model with a type that torch has not (floats of 6 bits) has no `.bin` files, and one with a type that
// safetensors has not (complex32, complex128) has no folders.
TEST_F(MountFormats, TensorsOfRareTypesAreCarriedBitForBit) {
  const std::vector<std::pair<std::string, DType>> known = {{"freqs_cis", DType::kC64},
                                                            {"scale_e8m0", DType::kF8E8M0},
                                                            {"e4m3fnuz", DType::kF8E4M3Fnuz},
                                                            {"e5m2fnuz", DType::kF8E5M2Fnuz},
                                                            {"f4", DType::kF4}};
  ModelBuilder rare = linear_model();
  for (const auto& [name, dtype] : known) {
    rare.tensor(name, dtype, {3, 5});
  }
  rare.write(model("rare"));
  linear_model().tensor("f6", DType::kF6E2M3, {2, 3}).tensor("f6.b", DType::kF6E3M2, {7}).write(model("six"));

  const std::string values(48, 'c');
  write_file(model("complex") + "/pytorch_model.bin",
             torch_zip(pickle_tensors({{"c128", "0", "ComplexDoubleStorage", 3, 0, {3}, {1}}}), {{"0", values}}));

  MountedFs& fs = mount();
  EXPECT_EQ(names_in(fs.path("rare")), names_in(fs.path("six")));
  for (const std::string& dtype : all_dtypes()) {
    SCOPED_TRACE(dtype);
    EXPECT_EQ(names_in(fs.path("rare/" + dtype)), (Names{"0", "0.bin"}));
    EXPECT_TRUE(reads_as(read_whole(fs.path("rare/" + dtype + "/0.bin")), expected_file(model("rare"), dtype)));
    EXPECT_EQ(names_in(fs.path("complex/" + dtype)), Names{"0.bin"});
    EXPECT_EQ(stat_error(fs.path("complex/" + dtype + "/0")), ENOENT);
    EXPECT_TRUE(reads_as(read_whole(fs.path("complex/" + dtype + "/0.bin")), expected_file(model("complex"), dtype)));
    EXPECT_EQ(names_in(fs.path("six/" + dtype)), Names{"0"});
    EXPECT_EQ(stat_error(fs.path("six/" + dtype + "/0.bin")), ENOENT);
  }
  const std::string rare_source = read_file(model("rare") + "/model.safetensors");
  const std::string rare_served = read_whole(fs.path("rare/int8/0/model.safetensors")).bytes;
  for (const auto& [name, dtype] : known) {
    EXPECT_EQ(find_stored(rare_served, name), find_stored(rare_source, name)) << name;
  }
  const std::string six_source = read_file(model("six") + "/model.safetensors");
  const std::string six_served = read_whole(fs.path("six/nf4/0/model.safetensors")).bytes;
  for (const char* name : {"f6", "f6.b"}) {
    EXPECT_EQ(find_stored(six_served, name), find_stored(six_source, name)) << name;
  }
}

// S68: What other readers of a format accept is served: a safetensors header with `"__metadata__": null`, and a tensor
// that is named twice with one and the same description.
TEST_F(MountFormats, WhatOtherReadersAcceptIsServed) {
  const std::string entry = R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
  write_file(model("null") + "/model.safetensors", safetensors_file(R"({"__metadata__":null,)" + entry + "}", "xy"));
  write_file(model("twice") + "/model.safetensors", safetensors_file("{" + entry + "," + entry + "}", "xy"));
  const TorchView view{"a", "0", "ByteStorage", 2, 0, {2}, {1}};
  write_file(model("torch") + "/pytorch_model.bin", torch_zip(pickle_tensors({view, view}), {{"0", "xy"}}));
  write_file(model("index") + "/model.safetensors.index.json", R"({"weight_map":{"a":"s","a":"s"}})");
  write_file(model("index") + "/s", safetensors_file("{" + entry + "}", "xy"));
  MountedFs& fs = mount();
  for (const char* name : {"null", "twice", "torch", "index"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(fs.xattr(name, "error"), "");
    const std::string served = read_whole(fs.path(std::string(name) + "/int8/0/model.safetensors")).bytes;
    EXPECT_EQ(find_stored(served, "a"), (Stored{"U8", {2}, "xy"}));
  }
}

// S69: Weights that are quantized or packed already are refused in every dtype, also where config.json does not say
// that they are: `user.qcache.refused` says why.
TEST_F(MountFormats, PackedWeightsAreRefusedWithoutAConfigThatSaysSo) {
  const std::string module = "model.layers.0.self_attn.q_proj";
  linear_model()
      .config(R"({"model_type":"llama","quantization":{"group_size":64,"bits":4}})")
      .tensor(module + ".weight", DType::kU32, {64, 8})
      .tensor(module + ".scales", DType::kBF16, {64, 1})
      .tensor(module + ".biases", DType::kBF16, {64, 1})
      .write(model("mlx"));
  linear_model()
      .tensor("model.layers.0.mlp.switch_mlp.up_proj.weight", DType::kU32, {4, 64, 8})
      .tensor("model.layers.0.mlp.switch_mlp.up_proj.scales", DType::kU8, {4, 64, 2})
      .write(model("mlx_experts"));
  linear_model()
      .tensor("model.layers.0.mlp.experts.gate_up_proj_blocks", DType::kU8, {4, 64, 2, 16})
      .tensor("model.layers.0.mlp.experts.gate_up_proj_scales", DType::kU8, {4, 64, 2})
      .write(model("mxfp4"));
  linear_model().tensor(module + ".W_q", DType::kU8, {32, 64}).write(model("hqq"));
  linear_model().tensor("x.weight", DType::kF8E4M3Fnuz, {32, 64}).write(model("fnuz"));
  linear_model()
      .tensor("model.rotary.position_ids", DType::kU32, {4, 64})
      .tensor("bins.weight", DType::kI32, {64})
      .write(model("plain"));
  MountedFs& fs = mount();
  for (const char* name : {"mlx", "mlx_experts", "mxfp4", "hqq", "fnuz"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(names_in(fs.path(name)), Names{});
    EXPECT_NE(fs.xattr(name, "refused").find("int8: already quantized"), std::string::npos)
        << fs.xattr(name, "refused");
  }
  EXPECT_EQ(names_in(fs.path("plain")).size(), all_dtypes().size());
}

// S70: A torch checkpoint with a tensor that is larger than 64 times the file, or with tensors that are so together
// (elements that are stored once and stand for many), cannot be served.
TEST_F(MountFormats, CheckpointsThatStandForFarMoreThanTheyHoldAreRefused) {
  const std::string storage(4096, 'x');
  const auto checkpoint = [&](const std::vector<TorchView>& views) {
    return torch_zip(pickle_tensors(views), {{"0", storage}});
  };
  const std::string expanded =
      checkpoint({{"w", "0", "ByteStorage", 4096, 0, {int64_t{1} << 20, int64_t{1} << 21}, {0, 0}}});
  write_file(model("expanded") + "/pytorch_model.bin", expanded);
  std::vector<TorchView> shared;
  for (int i = 0; i < 40; ++i) {
    shared.push_back({"w" + std::to_string(i), "0", "ByteStorage", 4096, 0, {16, 4096}, {0, 1}});
  }
  write_file(model("shared") + "/pytorch_model.bin", checkpoint(shared));
  shared.resize(4);
  write_file(model("tied") + "/pytorch_model.bin", checkpoint(shared));
  MountedFs& fs = mount();
  EXPECT_EQ(names_in(fs.path("expanded")), Names{});
  EXPECT_NE(fs.xattr("expanded", "error").find("tensor 'w' is 2199023255552 bytes large"), std::string::npos)
      << fs.xattr("expanded", "error");
  EXPECT_EQ(names_in(fs.path("shared")), Names{});
  EXPECT_NE(fs.xattr("shared", "error").find("share its bytes"), std::string::npos) << fs.xattr("shared", "error");
  EXPECT_TRUE(reads_as(read_whole(fs.path("tied/int8/0.bin")), expected_file(model("tied"), "int8")));
}

}  // namespace
}  // namespace qcache
