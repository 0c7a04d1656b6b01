// Attribute values of the mHC operators.
#pragma once

namespace kgen {

enum class norm { none, round_first, unrounded };

}  // namespace kgen
