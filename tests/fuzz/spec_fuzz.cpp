// libFuzzer target: cmake --preset fuzz && cmake --build --preset fuzz --target spec_fuzz,
// then out/build/fuzz/tests/fuzz/spec_fuzz CORPUS_COPY tests/fuzz/corpus
#include "spec_fuzz.h"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kgen::try_spec({reinterpret_cast<const char*>(data), size});
  return 0;
}
