# Plays the part of Qmail::Deliverable::Client 1.08, which is on CPAN and in no distribution, for qpsmtpd's plug-in.
# It asks as the real one was recorded to (corpus/frontends/qpsmtpd.json): LWP, one connection for each question, the
# address in lower case and percent-encoded, no question for what is not made of plain words.
package Qmail::Deliverable::Client;
use strict;
use warnings;
use Exporter 'import';
use LWP::UserAgent;
use URI::Escape;

our @EXPORT_OK = ('deliverable');
our $SERVER    = '127.0.0.1:8998';
our $ERROR     = '';

my $NO_CONNECTION = 0x2f;
my $word          = qr/[\w!#\$%&'*+\/=?^`{|}~-]+/a;

sub deliverable {
    my $asked = lc shift;
    return unless $asked =~ /\A($word(?:\.$word)*(?:\@$word(?:\.$word)*)?)\z/;
    my $answer = LWP::UserAgent->new(timeout => 10)->get("http://$SERVER/qd1/deliverable?" . uri_escape($1));
    return $answer->content if $answer->code == 200 && length $answer->content;
    $ERROR = $answer->status_line;
    return $NO_CONNECTION;
}

1;
