// The memory behind transports/shm/memory.hpp in the model; see kernel.cpp.
#pragma once

#include <cstdint>

namespace model {

// Forgets all memory. `depth`: of the lanes that will be made.
void start_kernel(std::uint32_t depth);

}  // namespace model
