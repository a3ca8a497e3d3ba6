// Where the build has put the command.
#include "tests/fault/stage.hpp"

namespace fault {

const char* bus_command() noexcept { return BUS_COMMAND; }

}  // namespace fault
