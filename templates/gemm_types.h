// Enumerators of the gemm family's attributes, shared by its templates and its reference.
#pragma once

namespace kgen {

enum class b_layout {
  kn,  // B [k, n], row-major
  nk,  // B [n, k], row-major: a linear layer's weight as stored
};

}  // namespace kgen
