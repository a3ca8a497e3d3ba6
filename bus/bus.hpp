// The one include of Omnibus: nodes, publishers, subscribers, and what they speak. The transports
// are introduced by main: #include <transports/standard.hpp>.
#pragma once

#include "bus/base/error_code.hpp"
#include "bus/base/result.hpp"
#include "bus/codec/codec.hpp"
#include "bus/codec/received.hpp"
#include "bus/node/child.hpp"
#include "bus/node/error.hpp"
#include "bus/node/node.hpp"
