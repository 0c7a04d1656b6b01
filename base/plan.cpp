#include "base/plan.h"
