// The made-up engine around the core, for tests and simulations of rooms above: tests only.
// Threading: one thread.  Waits: never.
#pragma once

#include "terrace/manager/core_rig_internal.h"  // IWYU pragma: export
