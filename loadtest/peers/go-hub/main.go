// The Go hub: what one writes first. A goroutine that reads and one that writes for every client, a queue of 256
// messages between the hub and each writer, a hub goroutine that gives every message to every queue of its channel.
//
// -full=close ends a client whose queue is full (the gorilla chat example's way), -full=drop leaves the message out for
// it (the usual fix). There is no deadline for writes and no heartbeat: the queue alone judges a client.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"os/signal"
	"strings"
	"syscall"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
)

const queueMessages = 256

type client struct {
	conn    *websocket.Conn
	channel string
	send    chan []byte
}

type hub struct {
	clients  map[string]map[*client]bool
	join     chan *client
	leave    chan *client
	redis    *redis.PubSub
	dropFull bool
}

func main() {
	port := flag.String("port", "8081", "where to listen, on 127.0.0.1")
	url := flag.String("redis", "redis://127.0.0.1:6379", "the Redis that is subscribed to")
	full := flag.String("full", "close", "what a full queue does: close the client, or drop the message")
	flag.Parse()
	if *full != "close" && *full != "drop" {
		log.Fatalf("-full is close or drop, not %q", *full)
	}
	options, err := redis.ParseURL(*url)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	h := &hub{
		clients:  map[string]map[*client]bool{},
		join:     make(chan *client),
		leave:    make(chan *client),
		redis:    redis.NewClient(options).Subscribe(ctx),
		dropFull: *full == "drop",
	}
	go h.run(ctx)
	http.HandleFunc("/raw/", h.serve)
	server := &http.Server{Addr: "127.0.0.1:" + *port}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// run owns the lists of clients: nobody else touches them.
func (h *hub) run(ctx context.Context) {
	messages := h.redis.Channel()
	for {
		select {
		case c := <-h.join:
			if h.clients[c.channel] == nil {
				h.clients[c.channel] = map[*client]bool{}
				if err := h.redis.Subscribe(ctx, c.channel); err != nil {
					log.Printf("subscribe %s: %v", c.channel, err)
				}
			}
			h.clients[c.channel][c] = true
		case c := <-h.leave:
			h.remove(ctx, c)
		case message, ok := <-messages:
			if !ok {
				return
			}
			payload := []byte(message.Payload)
			for c := range h.clients[message.Channel] {
				select {
				case c.send <- payload:
				default:
					if !h.dropFull {
						h.remove(ctx, c)
					}
				}
			}
		}
	}
}

// remove takes a client off its list, and ends its writer; done twice it does nothing.
func (h *hub) remove(ctx context.Context, c *client) {
	if !h.clients[c.channel][c] {
		return
	}
	delete(h.clients[c.channel], c)
	close(c.send)
	// A writer that waits for a client that does not read never looks at its queue again.
	c.conn.UnderlyingConn().Close()
	if len(h.clients[c.channel]) == 0 {
		delete(h.clients, c.channel)
		if err := h.redis.Unsubscribe(ctx, c.channel); err != nil {
			log.Printf("unsubscribe %s: %v", c.channel, err)
		}
	}
}

var upgrader = websocket.Upgrader{
	ReadBufferSize:  1024,
	WriteBufferSize: 1024,
	CheckOrigin:     func(*http.Request) bool { return true },
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the answer has been sent
	}
	c := &client{conn: conn, channel: strings.TrimPrefix(r.URL.Path, "/raw/"), send: make(chan []byte, queueMessages)}
	h.join <- c
	go c.write()
	go c.read(h)
}

func (c *client) write() {
	defer c.conn.Close()
	for payload := range c.send {
		if err := c.conn.WriteMessage(websocket.TextMessage, payload); err != nil {
			return
		}
	}
}

func (c *client) read(h *hub) {
	for {
		if _, _, err := c.conn.ReadMessage(); err != nil {
			break
		}
	}
	h.leave <- c
}
