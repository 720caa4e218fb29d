// dump_quantized SCHEME DTYPE ROWS COLUMNS < source bytes > what the scheme stores for them
//
// For comparison with other implementations: one line "NAME DTYPE SHAPE BYTES" per stored tensor (the shape
// comma-separated), an empty line, then the tensors' bytes one after another.
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

#include "core/quant/scheme.h"
#include "tests/quant/encode_tensor.h"

int main(int argc, char** argv) {
  using namespace qcache;
  const Scheme* scheme = argc == 5 ? find_scheme(argv[1]) : nullptr;
  const std::optional<DType> dtype = argc == 5 ? dtype_from_safetensors(argv[2]) : std::nullopt;
  if (scheme == nullptr || !dtype) {
    std::cerr << "usage: dump_quantized SCHEME DTYPE ROWS COLUMNS < source, with DTYPE such as BF16\n";
    return 2;
  }
  const TensorInfo tensor = tensor_of("layers.0.q_proj.weight", *dtype,
                                      {std::strtoull(argv[3], nullptr, 10), std::strtoull(argv[4], nullptr, 10)});
  std::ostringstream input;
  input << std::cin.rdbuf();
  const std::string text = input.str();
  if (text.size() != tensor.data.size) {
    std::cerr << "expected " << tensor.data.size << " bytes of source, got " << text.size() << '\n';
    return 2;
  }
  const Encoding encoding = encoding_alone(*scheme, tensor);
  const auto bytes = encode_tensor(encoding, std::as_bytes(std::span(text)));
  for (const StoredTensor& stored : encoding.stored) {
    std::cout << stored.name << ' ' << safetensors_name(stored.dtype) << ' ';
    for (size_t i = 0; i < stored.shape.size(); ++i) {
      std::cout << (i == 0 ? "" : ",") << stored.shape[i];
    }
    std::cout << ' ' << stored.size_bytes() << '\n';
  }
  std::cout << '\n';
  for (const auto& data : bytes) {
    std::cout.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  }
  return std::cout.flush() ? 0 : 1;
}
