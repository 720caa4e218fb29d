#include "core/quant/decode.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <string_view>

#include "core/quant/number_formats.h"
#include "core/quant/quantizer.h"

namespace qcache::decode {
namespace {

uint8_t byte_at(const DecodeArgs& args, size_t stored, uint64_t index) {
  return std::to_integer<uint8_t>(args.stored[stored][index]);
}

/// The `index`-th value of a stored tensor of scales.
float scale_at(const DecodeArgs& args, size_t stored, DType dtype, uint64_t index) {
  return load_as_float(dtype, args.stored[stored].data() + index * item_bytes(dtype));
}

uint8_t low_first(const DecodeArgs& args, uint64_t index) {
  return (byte_at(args, 0, index / 2) >> (index % 2 == 0 ? 0 : 4)) & 15;
}

uint8_t high_first(const DecodeArgs& args, uint64_t index) {
  return (byte_at(args, 0, index / 2) >> (index % 2 == 0 ? 4 : 0)) & 15;
}

/// Calls value(index, group) for each element; groups have `elements` each.
template <typename Value>
void in_groups(const DecodeArgs& args, uint64_t elements, const Value& value) {
  const uint64_t count = args.values.size();
  for (uint64_t i = 0, group = 0; i < count; ++group) {
    for (const uint64_t end = std::min(i + elements, count); i < end; ++i) {
      args.values[i] = value(i, group);
    }
  }
}

/// The mean absmax, as the quant state tells it.
float nested_offset(std::span<const std::byte> quant_state) {
  constexpr std::string_view kKey = "\"nested_offset\": ";
  const std::string_view text(reinterpret_cast<const char*>(quant_state.data()), quant_state.size());
  const size_t at = text.find(kKey);
  double offset = 0;
  if (at != std::string_view::npos) {
    std::from_chars(text.data() + at + kKey.size(), text.data() + text.size(), offset);
  }
  return static_cast<float>(offset);
}

uint64_t elements_per_scale(const DecodeArgs& args) {
  return args.group_elements != 0 ? args.group_elements : args.row_elements;
}

}  // namespace

void int8(const DecodeArgs& args) {
  in_groups(args, elements_per_scale(args), [&](uint64_t i, uint64_t group) {
    return static_cast<float>(std::bit_cast<int8_t>(byte_at(args, 0, i))) *
           scale_at(args, 1, scale_dtype(args.source_dtype), group);
  });
}

void w8a16(const DecodeArgs& args) {
  in_groups(args, elements_per_scale(args), [&](uint64_t i, uint64_t group) {
    return static_cast<float>(byte_at(args, 0, i) - 128) * scale_at(args, 1, scale_dtype(args.source_dtype), group);
  });
}

void e4m3(const DecodeArgs& args) {
  in_groups(args, elements_per_scale(args), [&](uint64_t i, uint64_t group) {
    return e4m3_to_float(byte_at(args, 0, i)) * scale_at(args, 1, scale_dtype(args.source_dtype), group);
  });
}

void llm_int8(const DecodeArgs& args) {
  constexpr float kReciprocalOf127 = 7.874015718698502e-3F;  // bitsandbytes' constant
  in_groups(args, args.row_elements, [&](uint64_t i, uint64_t row) {
    return static_cast<float>(std::bit_cast<int8_t>(byte_at(args, 0, i))) * scale_at(args, 1, DType::kF32, row) *
           kReciprocalOf127;
  });
}

void fp8_block(const DecodeArgs& args) {
  const uint64_t squares = args.row_elements / kFp8BlockSide;
  in_groups(args, args.row_elements, [&](uint64_t i, uint64_t row) {
    const uint64_t square = row / kFp8BlockSide * squares + i % args.row_elements / kFp8BlockSide;
    return e4m3_to_float(byte_at(args, 0, i)) * scale_at(args, 1, DType::kF32, square);
  });
}

void int4(const DecodeArgs& args) {
  in_groups(args, args.group_elements, [&](uint64_t i, uint64_t group) {
    return static_cast<float>(low_first(args, i) - 8) * scale_at(args, 1, scale_dtype(args.source_dtype), group);
  });
}

void mxfp4(const DecodeArgs& args) {
  in_groups(args, kMxfp4GroupElements, [&](uint64_t i, uint64_t group) {
    return e2m1_to_float(low_first(args, i)) / mxfp4_multiplier(byte_at(args, 1, group));
  });
}

void nvfp4(const DecodeArgs& args) {
  const float global_scale =
      args.survey != nullptr ? nvfp4_global_scale(args.survey->amax) : scale_at(args, 2, DType::kF32, 0);
  in_groups(args, kNvfp4GroupElements, [&](uint64_t i, uint64_t group) {
    return e2m1_to_float(low_first(args, i)) * (e4m3_to_float(byte_at(args, 1, group)) / global_scale);
  });
}

void nf4(const DecodeArgs& args) {
  in_groups(args, kNf4BlockElements, [&](uint64_t i, uint64_t block) {
    return kNf4Values.at(high_first(args, i)) * scale_at(args, 1, DType::kF32, block);
  });
}

void fp4(const DecodeArgs& args) {
  in_groups(args, kNf4BlockElements, [&](uint64_t i, uint64_t block) {
    return kFp4Values.at(high_first(args, i)) * scale_at(args, 1, DType::kF32, block);
  });
}

void nf4_dq(const DecodeArgs& args) {
  const float offset = args.survey != nullptr ? args.survey->mean() : nested_offset(args.stored[5]);
  in_groups(args, kNf4BlockElements, [&](uint64_t i, uint64_t block) {
    const float nested = scale_at(args, 2, DType::kF32, block / kNestedBlocks);
    const float absmax = dynamic_map().at(byte_at(args, 1, block)) * nested + offset;
    return kNf4Values.at(high_first(args, i)) * absmax;
  });
}

void qint4(const DecodeArgs& args) {
  const DType dtype = scale_dtype(args.source_dtype);
  const uint64_t first_half = args.stored[0].size();  // elements: one byte holds one of each half
  in_groups(args, args.group_elements, [&](uint64_t i, uint64_t group) {
    const auto code = i < first_half ? byte_at(args, 0, i) & 15 : byte_at(args, 0, i - first_half) >> 4;
    const float product = round_to(dtype, static_cast<float>(code) * scale_at(args, 1, dtype, group));
    return round_to(dtype, product - scale_at(args, 2, dtype, group));
  });
}

}  // namespace qcache::decode
