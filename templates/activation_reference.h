// The activations of OPS.md a in double, for the references of operators with an epilogue; not those of epilogue.h.
#pragma once
#include "prelude.h"

namespace kgen {
namespace activation_reference {

template <class C>
KGEN_DEVICE double activate(double t) {
  if constexpr (C::epilogue_relu != 0) return t < 0 ? 0.0 : t;
  if constexpr (C::epilogue_gelu_erf != 0) return t / 2 * (1 + erf_d(t * 0.70710678118654752440));
  if constexpr (C::epilogue_gelu_tanh != 0)
    return t / 2 * (1 + tanh_d(0.79788456080286535588 * (t + 0.044715 * t * t * t)));
  if constexpr (C::epilogue_silu != 0) return t / (1 + exp_d(-t));
  if constexpr (C::epilogue_quick_gelu != 0) return t / (1 + exp_d(-1.702 * t));
  if constexpr (C::epilogue_sigmoid != 0) return 1 / (1 + exp_d(-t));
  return t;
}

template <class C>
inline constexpr int kActivation = C::epilogue_relu + C::epilogue_gelu_erf + C::epilogue_gelu_tanh + C::epilogue_silu +
                                   C::epilogue_quick_gelu + C::epilogue_sigmoid;

}  // namespace activation_reference
}  // namespace kgen
