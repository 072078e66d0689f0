# Draws docs/latency.svg:
#   embar bench latency --rates 1000,2000,5000,10000,20000,50000,100000 --data latency.dat
#   gnuplot docs/latency.gp
set terminal svg size 960,420 font "sans,12" background "white"
set output "docs/latency.svg"
set multiplot layout 1,2
set grid
set key left top
set ylabel "microseconds"
set logscale xy
set style data linespoints
set title "By load, messages of 1 KiB"
set xlabel "messages a second"
plot "< awk '/^# pub|^# TCP/ { exit } $2 == 0' latency.dat" using 1:3 title "publish to ack, p50" pt 7, \
     "< awk '/^# pub|^# TCP/ { exit } $2 == 0' latency.dat" using 1:5 title "p99" pt 6, \
     "< awk '/^# pub|^# TCP/ { exit } $2 == 1' latency.dat" using 1:3 title "publish to subscriber, p50" pt 5, \
     "< awk '/^# pub|^# TCP/ { exit } $2 == 1' latency.dat" using 1:5 title "p99" pt 4, \
     "< awk '/^# pub|^# TCP/ { exit } $2 == 2' latency.dat" using 1:3 title "TCP echo, p50" pt 9, \
     "< awk '/^# pub|^# TCP/ { exit } $2 == 2' latency.dat" using 1:5 title "p99" pt 8
set title "At 10,000 a second"
set xlabel "of so many messages one takes longer"
set style data lines
plot "< awk '/^# / { on = /^# publish->ack at 10000\\/s/ || (on && /Value/) } on && NF == 4 && !/#/' latency.dat" \
         using 4:1 title "publish to ack", \
     "< awk '/^# / { on = /^# publish->sub.* at 10000\\/s/ || (on && /Value/) } on && NF == 4 && !/#/' latency.dat" \
         using 4:1 title "publish to subscriber", \
     "< awk '/^# / { on = /^# TCP echo at 10000\\/s/ || (on && /Value/) } on && NF == 4 && !/#/' latency.dat" \
         using 4:1 title "TCP echo"
unset multiplot
