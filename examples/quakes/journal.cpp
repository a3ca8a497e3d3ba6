#include "examples/quakes/journal.hpp"

#include "bus/base/ids.hpp"

#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

namespace demo {
namespace {

constexpr std::size_t head_bytes = 8;

std::uint32_t number_at(std::string_view text, std::size_t at) {
  std::uint32_t number = 0;
  std::memcpy(&number, text.data() + at, sizeof number);
  return number;
}

std::uint32_t checksum(std::string_view text) {
  return static_cast<std::uint32_t>(bus::hash64(text));
}

// The entries, and how many bytes they take.
std::pair<std::vector<Entry>, std::size_t> parse(std::string_view text) {
  std::vector<Entry> found;
  std::size_t at = 0;
  while (text.size() - at >= head_bytes) {
    const std::size_t length = number_at(text, at);
    if (length > text.size() - at - head_bytes) break;
    const std::string_view body = text.substr(at + head_bytes, length);
    if (checksum(body) != number_at(text, at + 4)) break;
    if (!found.emplace_back().ParseFromArray(body.data(), static_cast<int>(length))) {
      found.pop_back();
      break;
    }
    at += head_bytes + length;
  }
  return {std::move(found), at};
}

std::string whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

}  // namespace

journal::journal(const std::string& path)
    : file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) {
  if (!file_) throw std::runtime_error("cannot open the journal " + path);
  auto [entries, bytes] = parse(whole(path));
  before_ = std::move(entries);
  if (::ftruncate(file_.get(), static_cast<off_t>(bytes)) != 0) {
    throw std::runtime_error("cannot mend the journal " + path);
  }
}

void journal::append(const Entry& entry) {
  std::string record(head_bytes, '\0');
  entry.AppendToString(&record);
  const std::string_view body = std::string_view(record).substr(head_bytes);
  const auto length = static_cast<std::uint32_t>(body.size());
  const std::uint32_t sum = checksum(body);
  std::memcpy(record.data(), &length, sizeof length);
  std::memcpy(record.data() + 4, &sum, sizeof sum);
  if (::write(file_.get(), record.data(), record.size()) != static_cast<ssize_t>(record.size())) {
    throw std::runtime_error("cannot write the journal: is the disk full?");
  }
}

std::vector<Entry> journal::read(const std::string& path) { return parse(whole(path)).first; }

}  // namespace demo
