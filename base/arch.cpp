#include "base/arch.h"
