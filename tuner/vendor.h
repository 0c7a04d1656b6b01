// Which call of the device maker's libraries is the same problem as an operator's.
#pragma once

#include "base/plan.h"
#include "device/vendor.h"
#include "generator/spec.h"

namespace kgen {

// `problem`: the op's tensor, scalar and dim parameters for the shape (CheckCase::problem). kBadInput, one line, where
// no library has such an operator.
Result<VendorCall> vendor_call(const OpSpec&, const BoundPlan& problem);

}  // namespace kgen
