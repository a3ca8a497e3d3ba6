#include "transports/standard.hpp"

#include "transports/inproc/inproc.hpp"
#include "transports/pipe/pipe.hpp"
#include "transports/shm/shm.hpp"
#include "transports/zmq/zmq.hpp"

namespace transports {

bus::bill_of_transports standard() { return {inproc(), pipe(), shm(), zmq()}; }

}  // namespace transports
