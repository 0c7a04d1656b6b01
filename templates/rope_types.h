// Enumerators of rope's attributes.
#pragma once

namespace kgen {

enum class style { neox, gptj };

}  // namespace kgen
