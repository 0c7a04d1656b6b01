// Reads gzip (RFC 1952) without a library: recorded search spaces come compressed.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace kgen {

bool is_gzip(std::string_view bytes);
// kBadInput for damaged data, a wrong checksum, or more than `limit` bytes of output.
Result<std::string> gunzip(std::string_view bytes, std::size_t limit = std::size_t{1} << 31);

}  // namespace kgen
