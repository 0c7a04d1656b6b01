// What a device can calculate at most.
#pragma once

#include <string>

#include "device/device.h"

namespace kgen {

// Dense multiplications and additions a second on operands of `dtype` at the device's highest clock, by the unit that
// is fastest for them; 0 = not known.
double peak_flops(const DeviceInfo&, const std::string& dtype);

}  // namespace kgen
