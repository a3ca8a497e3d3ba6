#include "bus/node/topics_file.hpp"

#include <iterator>
#include <string>

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/delimited_message_util.h>

namespace bus {
namespace {

// So many records may be of no more use, beside as many as are, before all is written anew.
constexpr std::size_t waste_max = 1024;

// Records, each with its length before it.
class records {
 public:
  void add(const wire::TopicChange& change) {
    google::protobuf::util::SerializeDelimitedToCodedStream(change, &out_);
    ++count_;
  }
  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] const std::string& bytes() {
    out_.Trim();
    return bytes_;
  }

 private:
  std::string bytes_;
  std::size_t count_ = 0;
  google::protobuf::io::StringOutputStream end_{&bytes_};
  // One for all: a stream for each record would fill the string's spare room each time.
  google::protobuf::io::CodedOutputStream out_{&end_};
};

}  // namespace

result<void> topics_file::write(rendezvous& place, const publications& all) {
  if (all.size() >= too_many_) return {};
  const bool anew = !is_whole_ || records_ + gone_.size() > 2 * all.size() + waste_max;
  const auto first = anew ? all.begin() : all.upper_bound(told_);
  records news;
  if (!anew) {
    if (gone_.empty() && first == all.end()) return {};
    for (const std::uint32_t publisher : gone_) {
      wire::TopicChange change;
      change.set_went(publisher);
      news.add(change);
    }
  }
  for (auto at = first; at != all.end(); ++at) {
    wire::TopicChange change;
    *change.mutable_came() = at->second->advertisement();
    news.add(change);
  }
  is_whole_ = false;
  auto written = anew ? place.write_topics(news.bytes()) : place.append_topics(news.bytes());
  if (!written && !anew) return write(place, all);
  if (written.error() == errc::too_big) too_many_ = all.size();
  if (!written) return written;
  is_whole_ = true;
  too_many_ = SIZE_MAX;
  gone_.clear();
  records_ = (anew ? 0 : records_) + news.count();
  if (!all.empty()) told_ = std::prev(all.end())->first;
  return {};
}

}  // namespace bus
