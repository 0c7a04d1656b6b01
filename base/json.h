// Numbers of JSON from outside.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>

namespace kgen {

// json.get<T>(), but a number that T cannot hold throws nlohmann's type_error, as a text in its place does: get()
// casts, and a fraction like 1e80 cast to an integer is undefined.
template <class T, class J>
T exactly(const J& json) {
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    static_assert(sizeof(T) < 8 || std::is_signed_v<T>);
    const bool fits = json.is_number_integer() &&
                      (!json.is_number_unsigned() ||
                       json.template get<std::uint64_t>() <= std::uint64_t(std::numeric_limits<std::int64_t>::max())) &&
                      json.template get<std::int64_t>() >= std::int64_t(std::numeric_limits<T>::min()) &&
                      json.template get<std::int64_t>() <= std::int64_t(std::numeric_limits<T>::max());
    if (!fits)
      throw nlohmann::json::type_error::create(302, "a whole number is wanted, not " + json.dump().substr(0, 40),
                                               &json);
  }
  return json.template get<T>();
}

}  // namespace kgen
