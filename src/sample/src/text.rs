//! Sentences for the sample files, Korean and English, filled from word lists by a dice.
//!
//! Particles after a slot are chosen so that every word of its list fits (`측은`, `에서는`, or a
//! noun after the word), because Korean particles depend on the last sound of the word.

/// A small generator with a fixed algorithm: the same seed gives the same files in every release.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A dice with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x7472_696e_655f_7478)
    }

    /// The next number (SplitMix64).
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The remainder is below `bound`, a usize.
        (self.roll() % bound as u64) as usize
    }

    /// One of `items`.
    pub fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items.get(self.below(items.len())).copied().unwrap_or_default()
    }
}

const KO_CITY: &[&str] = &[
    "서울", "부산", "대구", "인천", "광주", "대전", "울산", "세종", "수원", "전주", "청주", "춘천",
    "제주", "포항", "창원", "목포",
];
const KO_DAY: &[&str] = &["월요일", "화요일", "수요일", "목요일", "금요일", "토요일", "일요일"];
const KO_TEAM: &[&str] = &[
    "기획팀",
    "개발팀",
    "영업팀",
    "품질관리팀",
    "재무팀",
    "인사팀",
    "물류팀",
    "연구소",
    "홍보팀",
    "고객지원팀",
    "해외사업팀",
    "데이터팀",
];
const KO_NAME: &[&str] = &[
    "김민수",
    "이서연",
    "박지훈",
    "최유진",
    "정하늘",
    "강도윤",
    "조은서",
    "윤재호",
    "장미란",
    "임태영",
    "한소희",
    "오세훈",
];
const KO_GOOD: &[&str] = &[
    "쌀",
    "배추",
    "사과",
    "고등어",
    "휘발유",
    "철강",
    "반도체",
    "이차전지",
    "자동차 부품",
    "커피 원두",
    "구리",
    "천연가스",
];
const KO_TOPIC: &[&str] = &[
    "내년도 예산",
    "신제품 출시 일정",
    "서버 이전",
    "고객 불만 처리",
    "보안 점검",
    "재고 관리",
    "근무 제도 개편",
    "해외 지사 설립",
    "품질 개선",
    "검색 성능",
    "데이터 수집",
    "교육 과정",
];
const KO_SKY: &[&str] = &[
    "맑겠습니다",
    "흐리겠습니다",
    "비가 오겠습니다",
    "눈이 내리겠습니다",
    "안개가 짙겠습니다",
    "바람이 강하게 불겠습니다",
    "소나기가 지나가겠습니다",
    "미세먼지가 많겠습니다",
];
const KO_SENTENCES: &[&str] = &[
    "{day} 회의에서 {team} 측은 {topic} 안건을 먼저 다루자고 제안했습니다.",
    "{city} 본사에서 열린 회의에는 {team} 직원 {n}명이 참석했습니다.",
    "회의 결과 {topic} 문제는 다음 달까지 다시 검토하기로 했습니다.",
    "{name} 부장은 회의 자료를 미리 공유해 달라고 요청했습니다.",
    "정기 회의는 매주 {day} 오전 {h}시에 시작합니다.",
    "{name} 과장이 회의록을 작성해 전 직원에게 전자우편으로 보냈습니다.",
    "오늘 {city} 시장에서는 {good} 가격이 지난주보다 {p}퍼센트 올랐습니다.",
    "{good} 시장은 수요가 줄어 거래량이 {n}톤에 그쳤습니다.",
    "증권 시장에서 {good} 관련 종목이 일제히 강세를 보였습니다.",
    "전문가들은 {good} 수출이 하반기에 회복될 것으로 내다봤습니다.",
    "{city} 상인회는 전통 시장을 찾는 손님이 {p}퍼센트 늘었다고 밝혔습니다.",
    "환율은 전날보다 {p}원 내린 채 거래를 마쳤습니다.",
    "{day} {city} 지역은 대체로 {sky}.",
    "{city} 지역의 낮 최고 기온은 {t}도로 예상되며 오후 늦게 {sky}.",
    "기상청은 {city} 앞바다의 물결이 최고 {h}미터까지 일겠다고 예보했습니다.",
    "내일 아침에는 기온이 크게 떨어지니 건강 관리에 주의하시기 바랍니다.",
    "{city} 물류 센터는 하루 평균 {n}건의 주문을 처리합니다.",
    "{team} 측은 배송 지연의 원인이 도로 공사라고 설명했습니다.",
    "연구진은 새로운 분석 방법으로 처리 시간을 {p}퍼센트 줄였습니다.",
    "{name} 연구원은 이번 논문을 {city} 학회에서 발표할 예정입니다.",
    "{city} 도서관은 {day} 저녁 {h}시에 작가와의 만남을 엽니다.",
    "올해 {city} 축제에는 관광객 {n}명이 다녀갔습니다.",
    "{city} 구단은 연장 접전 끝에 {h}대 {t2}로 이겼습니다.",
    "보안 담당자는 비밀번호를 석 달마다 바꾸라고 안내했습니다.",
    "이번 점검에서 오래된 서버 {t2}대가 교체 대상으로 확인되었습니다.",
    "{team} 신입 사원 교육은 {city} 연수원에서 {h}일 동안 진행됩니다.",
    "농민들은 가뭄이 길어져 {good} 생산이 걱정된다고 말했습니다.",
    "버스 노선 {n}번은 {day}부터 {city} 터미널을 지나갑니다.",
];
const KO_TITLES: &[&str] = &[
    "{team} 주간 회의 결과",
    "{topic} 관련 회의록",
    "{city} {good} 시장 동향",
    "{city} {day} 날씨",
    "{topic} 검토 보고",
    "{city} 지역 소식",
    "{name} 출장 보고서",
    "{team} 업무 일지",
];

const EN_CITY: &[&str] = &[
    "Seoul", "Busan", "London", "Berlin", "Toronto", "Osaka", "Madrid", "Nairobi", "Lima", "Oslo",
    "Austin", "Hanoi",
];
const EN_DAY: &[&str] =
    &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const EN_TEAM: &[&str] = &[
    "platform team",
    "sales team",
    "finance office",
    "research group",
    "support desk",
    "logistics unit",
    "security team",
    "data team",
];
const EN_NAME: &[&str] =
    &["Alice Kim", "Brian Cho", "Carla Ruiz", "David Okoye", "Emma Lind", "Farid Aziz"];
const EN_GOOD: &[&str] = &[
    "copper",
    "rice",
    "coffee",
    "lithium",
    "steel",
    "natural gas",
    "memory chips",
    "soybeans",
    "used cars",
    "container space",
];
const EN_TOPIC: &[&str] = &[
    "the budget for next year",
    "the release schedule",
    "the migration of the servers",
    "customer complaints",
    "search quality",
    "the storage plan",
    "hiring",
    "the audit",
];
const EN_SKY: &[&str] =
    &["clear skies", "light rain", "heavy snow", "strong wind", "morning fog", "scattered showers"];
const EN_SENTENCES: &[&str] = &[
    "The {day} meeting in {city} opened with {topic}.",
    "{name} asked the {team} to share its notes before the next meeting.",
    "After {n} minutes the meeting agreed to postpone {topic}.",
    "Prices of {good} rose by {p} percent on the {city} market.",
    "Traders in {city} expect demand for {good} to recover in autumn.",
    "The market for {good} was quiet, with only {n} contracts traded.",
    "The forecast for {city} on {day} is {sky}.",
    "Temperatures near {city} may fall to {t} degrees overnight, with {sky}.",
    "The {team} closed {n} tickets this week.",
    "{name} presented a plan that cuts processing time by {p} percent.",
    "A warehouse outside {city} now ships {n} parcels a day.",
    "The library in {city} extends its opening hours until {h} o'clock.",
    "Engineers replaced {t2} ageing servers without interrupting service.",
    "\"We read every file exactly once,\" said {name}.",
    "The {team} measured the change twice and found the same result.",
    "Visitors to the {city} festival numbered {n}.",
];
const EN_TITLES: &[&str] = &[
    "Minutes of the {team}",
    "Market report: {good} in {city}",
    "Weather for {city}, {day}",
    "Notes on {topic}",
    "Travel report by {name}",
    "News from {city}",
];

/// Language of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    /// Korean.
    Ko,
    /// English.
    En,
}

/// A title line.
pub fn title(dice: &mut Dice, lang: Lang) -> String {
    let templates = match lang {
        Lang::Ko => KO_TITLES,
        Lang::En => EN_TITLES,
    };
    let template = dice.pick(templates);
    fill(dice, lang, template)
}

/// One sentence.
pub fn sentence(dice: &mut Dice, lang: Lang) -> String {
    let templates = match lang {
        Lang::Ko => KO_SENTENCES,
        Lang::En => EN_SENTENCES,
    };
    let template = dice.pick(templates);
    fill(dice, lang, template)
}

/// A title, an empty line, and paragraphs of a few sentences each.
pub fn article(dice: &mut Dice, lang: Lang, paragraphs: usize) -> String {
    let mut text = title(dice, lang);
    text.push('\n');
    for _ in 0..paragraphs {
        text.push('\n');
        let sentences: Vec<String> = (0..3 + dice.below(4)).map(|_| sentence(dice, lang)).collect();
        text.push_str(&sentences.join(" "));
        text.push('\n');
    }
    text
}

fn fill(dice: &mut Dice, lang: Lang, template: &str) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (slot, tail) = after.split_once('}').unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(&word(dice, lang, slot));
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn word(dice: &mut Dice, lang: Lang, slot: &str) -> String {
    let korean = lang == Lang::Ko;
    let list = match slot {
        "n" => return (20 + dice.below(980)).to_string(),
        "h" => return (1 + dice.below(11)).to_string(),
        "t" => return dice.below(34).to_string(),
        "t2" => return (2 + dice.below(7)).to_string(),
        "p" => return format!("{}.{}", 1 + dice.below(12), dice.below(10)),
        "city" => [EN_CITY, KO_CITY],
        "day" => [EN_DAY, KO_DAY],
        "team" => [EN_TEAM, KO_TEAM],
        "name" => [EN_NAME, KO_NAME],
        "good" => [EN_GOOD, KO_GOOD],
        "topic" => [EN_TOPIC, KO_TOPIC],
        "sky" => [EN_SKY, KO_SKY],
        other => panic!("no word list for {other}"),
    };
    dice.pick(list[usize::from(korean)]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_of_every_template_has_words() {
        let mut dice = Dice::new(1);
        for (lang, lists) in
            [(Lang::Ko, [KO_SENTENCES, KO_TITLES]), (Lang::En, [EN_SENTENCES, EN_TITLES])]
        {
            for template in lists.concat() {
                let text = fill(&mut dice, lang, template);
                assert!(!text.contains(['{', '}']), "{text}");
            }
        }
    }

    #[test]
    fn the_same_seed_tells_the_same_story() {
        let tell = |seed| article(&mut Dice::new(seed), Lang::Ko, 3);
        assert_eq!(tell(5), tell(5));
        assert_ne!(tell(5), tell(6));
    }
}
