"""Everyday commands and sentences: Russian and natural English of the same meaning, with slots in braces.

Both sides are used: the Russian one for Russian speech, with the English one as its translation,
and the English one for English speech. No apostrophes and no hyphens, so that words stay words.
"""

SLOTS: dict[str, tuple[tuple[str, str], ...]] = {
    "thing": (
        ("свет", "the light"), ("телевизор", "the television"), ("радио", "the radio"),
        ("чайник", "the kettle"), ("отопление", "the heating"), ("музыку", "the music"),
        ("компьютер", "the computer"), ("лампу", "the lamp"), ("камеру", "the camera"),
    ),
    "closable": (
        ("дверь", "the door"), ("окно", "the window"), ("ворота", "the gate"),
        ("файл", "the file"), ("книгу", "the book"), ("письмо", "the letter"),
    ),
    "room": (
        ("на кухне", "in the kitchen"), ("в спальне", "in the bedroom"), ("в гостиной", "in the living room"),
        ("в ванной", "in the bathroom"), ("в саду", "in the garden"), ("в гараже", "in the garage"),
        ("в офисе", "in the office"),
    ),
    "person": (
        ("маме", "mother"), ("папе", "father"), ("брату", "my brother"), ("сестре", "my sister"),
        ("врачу", "the doctor"), ("Анне", "Anna"), ("Ивану", "Ivan"), ("Марии", "Maria"),
    ),
    "name": (("Анна", "Anna"), ("Иван", "Ivan"), ("Мария", "Maria"), ("Пётр", "Peter"), ("Павел", "Paul")),
    "city": (
        ("в Москву", "to Moscow"), ("в Лондон", "to London"), ("в Париж", "to Paris"),
        ("в Берлин", "to Berlin"), ("в Рим", "to Rome"),
    ),
    "food": (
        ("хлеб", "bread"), ("молоко", "milk"), ("сыр", "cheese"), ("чай", "tea"), ("кофе", "coffee"),
        ("яблоки", "apples"), ("рыбу", "fish"), ("воду", "water"), ("сахар", "sugar"), ("масло", "butter"),
    ),
    "colour": (
        ("красный", "red"), ("синий", "blue"), ("зелёный", "green"), ("белый", "white"),
        ("чёрный", "black"), ("жёлтый", "yellow"),
    ),
    "day": (
        ("в понедельник", "on Monday"), ("во вторник", "on Tuesday"), ("в среду", "on Wednesday"),
        ("в четверг", "on Thursday"), ("в пятницу", "on Friday"), ("в субботу", "on Saturday"),
        ("в воскресенье", "on Sunday"), ("сегодня", "today"), ("завтра", "tomorrow"),
    ),
    "weather": (("холодно", "cold"), ("тепло", "warm"), ("жарко", "hot"), ("темно", "dark"), ("тихо", "quiet")),
}  # fmt: skip

PAIRS = """
Включи {thing}.|Turn on {thing}.
Выключи {thing}.|Turn off {thing}.
Включи {thing} {room}.|Turn on {thing} {room}.
Выключи {thing} {room}.|Turn off {thing} {room}.
Включи, пожалуйста, {thing}.|Please turn on {thing}.
Выключи {thing}, пожалуйста.|Turn off {thing}, please.
Открой {closable}.|Open {closable}.
Закрой {closable}.|Close {closable}.
Открой {closable}, пожалуйста.|Open {closable}, please.
Закрой {closable} {room}.|Close {closable} {room}.
Да.|Yes.
Нет.|No.
Стоп.|Stop.
Старт.|Start.
Привет.|Hello.
Спасибо.|Thank you.
Большое спасибо.|Thank you very much.
Пожалуйста.|Please.
Вперёд.|Forward.
Назад.|Back.
Налево.|Left.
Направо.|Right.
Вверх.|Up.
Вниз.|Down.
Дальше.|Next.
Пауза.|Pause.
Повтори.|Repeat.
Повтори, пожалуйста.|Repeat, please.
Хорошо.|Good.
Готово.|Done.
Отмена.|Cancel.
Помощь.|Help.
Громче.|Louder.
Тише.|Quieter.
Доброе утро.|Good morning.
Добрый день.|Good afternoon.
Добрый вечер.|Good evening.
Спокойной ночи.|Good night.
До свидания.|Goodbye.
До завтра.|See you tomorrow.
Как дела?|How are you?
Всё хорошо, спасибо.|I am fine, thank you.
Как тебя зовут?|What is your name?
Меня зовут {name}.|My name is {name}.
Привет, {name}.|Hello, {name}.
{name}, где ты?|{name}, where are you?
Который час?|What time is it?
Какой сегодня день?|What day is it today?
Какая сегодня погода?|What is the weather like today?
Сегодня {weather}.|It is {weather} today.
Завтра будет {weather}.|It will be {weather} tomorrow.
{room} {weather}.|It is {weather} {room}.
Где ты?|Where are you?
Где мои ключи?|Where are my keys?
Где мой телефон?|Where is my phone?
Сколько это стоит?|How much is it?
Это стоит {n} рублей.|It costs {n} roubles.
Я не понимаю.|I do not understand.
Я не знаю.|I do not know.
Говорите медленно.|Speak slowly.
Говорите громче, пожалуйста.|Speak louder, please.
Я тебя слышу.|I can hear you.
Ты меня слышишь?|Can you hear me?
Позвони {person}.|Call {person}.
Позвони {person} {day}.|Call {person} {day}.
Напиши {person}.|Write to {person}.
Отправь письмо {person}.|Send a letter to {person}.
Отправь сообщение {person}.|Send a message to {person}.
Прочитай сообщение.|Read the message.
Прочитай новости.|Read the news.
Какие новости?|What is the news?
Начни запись.|Start recording.
Останови запись.|Stop recording.
Сохрани файл.|Save the file.
Удали файл.|Delete the file.
Удали последнее слово.|Delete the last word.
Новая строка.|New line.
Новый абзац.|New paragraph.
Следующая страница.|Next page.
Первая страница.|First page.
Последняя страница.|Last page.
Открой страницу {n}.|Open page {n}.
Следующая песня.|Next song.
Играй музыку.|Play music.
Останови музыку.|Stop the music.
Сделай громче.|Make it louder.
Сделай тише.|Make it quieter.
Громкость {n}.|Volume {n}.
Канал {n}.|Channel {n}.
Комната {n}.|Room {n}.
Поезд номер {n}.|Train number {n}.
Автобус номер {n}.|Bus number {n}.
Номер {n}, пожалуйста.|Number {n}, please.
Разбуди меня {time}.|Wake me up {time}.
Поставь будильник {time}.|Set the alarm {time}.
Поставь таймер на {n} минут.|Set the timer for {n} minutes.
Напомни мне {time}.|Remind me {time}.
Напомни мне {day}.|Remind me {day}.
Встреча будет {day}.|The meeting will be {day}.
Встреча будет {day} {time}.|The meeting will be {day} {time}.
Я приду {day}.|I will come {day}.
Я приду {time}.|I will come {time}.
Приходи {day} {time}.|Come {day} {time}.
Мы поедем {city} {day}.|We will go {city} {day}.
Я еду {city}.|I am going {city}.
Билет {city}, пожалуйста.|A ticket {city}, please.
Поезд {city} отправляется {time}.|The train {city} leaves {time}.
Когда поезд {city}?|When is the train {city}?
Купи {food}.|Buy {food}.
Купи {food} и {food2}.|Buy {food} and {food2}.
Купи {food}, пожалуйста.|Buy {food}, please.
Мне нужно купить {food}.|I need to buy {food}.
Я люблю {food}.|I love {food}.
Я хочу {food}.|I want {food}.
Я буду {food}, пожалуйста.|I will have {food}, please.
Дайте мне {food}, пожалуйста.|Give me {food}, please.
Добавь {food} в список.|Add {food} to the list.
Цвет {colour}.|The colour is {colour}.
Мой дом {colour}.|My house is {colour}.
Мне нравится {colour} цвет.|I like the colour {colour}.
Сделай свет ярче.|Make the light brighter.
Поставь температуру {n}.|Set the temperature to {n}.
Температура {n} градусов.|The temperature is {n} degrees.
Мне {n} лет.|I am {n} years old.
Нас {n} человек.|There are {n} of us.
До дома {n} километров.|It is {n} kilometres to the house.
Осталось {n} минут.|There are {n} minutes left.
Я дома.|I am at home.
Я на работе.|I am at work.
Я иду домой.|I am going home.
Мы опаздываем.|We are late.
Подожди минуту.|Wait a minute.
Иди сюда.|Come here.
Помоги мне, пожалуйста.|Help me, please.
Мне нужна помощь.|I need help.
Где вокзал?|Where is the station?
Где магазин?|Where is the shop?
Где больница?|Where is the hospital?
Вызови такси.|Call a taxi.
Вызови врача.|Call a doctor.
Найди ресторан.|Find a restaurant.
Поверни налево.|Turn left.
Поверни направо.|Turn right.
Поезжай прямо.|Go straight ahead.
Кто там?|Who is there?
Что это?|What is this?
Почему?|Why?
Когда?|When?
Где?|Where?
Кто это?|Who is this?
Проверь почту.|Check the mail.
Покажи карту.|Show the map.
Покажи фото.|Show the photo.
Сделай фото.|Take a photo.
Конечно.|Of course.
Может быть.|Maybe.
Очень хорошо.|Very good.
Это правда.|That is true.
Это не так.|That is not so.
Я согласен.|I agree.
Одну минуту, пожалуйста.|One minute, please.
Пора спать.|It is time to sleep.
Пора домой.|It is time to go home.
Обед готов.|Lunch is ready.
Ужин готов.|Dinner is ready.
У меня есть вопрос.|I have a question.
У меня есть собака.|I have a dog.
У меня есть кошка.|I have a cat.
Собака {room}.|The dog is {room}.
Кошка {room}.|The cat is {room}.
Дети {room}.|The children are {room}.
Мама {room}.|Mother is {room}.
"""


def pairs() -> list[tuple[str, str]]:
    """(Russian, English) templates."""
    return [tuple(line.split("|")) for line in PAIRS.strip().splitlines()]  # type: ignore[misc]
