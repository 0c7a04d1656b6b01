#include "base/expr.h"
