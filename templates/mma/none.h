// No matrix unit: the plain ALU in its place.
#pragma once
#include "fma.h"
